"""Which of a notebook's statements a function needs.

Running a whole chapter to call one function would take minutes for each student. So only the
statements are run that bind, or write into, a name that the function uses, and those that these
need in turn. What can escape such a look at the text (`exec`, a name made at run time) is caught
afterwards: if the function misses a name, the checker has the whole notebook run.
"""

from __future__ import annotations

import ast
import re
import symtable
from dataclasses import dataclass, field

# Statements that call these show something and change nothing.
SHOWING = {"print", "display", "plot", "plt", "checks"}


@dataclass
class Statement:
    """A top-level statement of a cell, and the names it has to do with."""

    cell: int
    number: int
    node: ast.stmt
    binds: set[str] = field(default_factory=set)
    uses: set[str] = field(default_factory=set)
    writes_into: set[str] = field(default_factory=set)  # objects it may change in place


def statements_of(cell: int, source: str) -> list[Statement]:
    """Return a cell's statements.

    Parameters
    ----------
    cell : int
        The cell's number, kept in the result.
    source : str
        Python without IPython's additions.

    Raises
    ------
    SyntaxError
        If it is no Python; also for other things that no parser takes, such as zero bytes.
    """
    try:
        tree = ast.parse(source)
        return [_statement(cell, number, node) for number, node in enumerate(tree.body)]
    except (ValueError, RecursionError, MemoryError) as error:
        raise SyntaxError(f"this cell cannot be read: {error}") from None


def _statement(cell: int, number: int, node: ast.stmt) -> Statement:
    found = Statement(cell, number, node)
    table = symtable.symtable(ast.unparse(node), "cell", "exec")
    for symbol in table.get_symbols():
        if symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace():
            found.binds.add(symbol.get_name())
        if symbol.is_referenced():
            found.uses.add(symbol.get_name())
    for child in table.get_children():
        _global_names(child, found)
    if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
        found.binds.add("*")
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        found.writes_into = _written(node)
    return found


def _global_names(table: symtable.SymbolTable, found: Statement) -> None:
    """Collect the globals that functions and classes inside a statement use or bind."""
    for symbol in table.get_symbols():
        if symbol.is_global():
            found.uses.add(symbol.get_name())
            if symbol.is_assigned():
                found.binds.add(symbol.get_name())
    for child in table.get_children():
        _global_names(child, found)


def _written(statement: ast.stmt) -> set[str]:
    """Return the names whose objects a statement may change: x[0] = ..., x.y = ..., x.add(...)."""
    found = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            found |= _base(node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            call = node.value
            receiver = _base(call.func)
            if not receiver & SHOWING:
                given = [*call.args, *(keyword.value for keyword in call.keywords)]
                found |= receiver.union(*map(_base, given))
    return found


def _base(node: ast.expr) -> set[str]:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
        node = node.value
    return {node.id} if isinstance(node, ast.Name) else set()


def needed(name: str, statements: list[Statement]) -> list[Statement]:
    """Return the statements that it takes to define `name` and to call it, in their order."""
    modules = set().union(
        *(s.binds for s in statements if isinstance(s.node, ast.Import | ast.ImportFrom))
    )
    wanted, names, taken = [name, "*"], set(), set()
    while wanted:
        wanted_name = wanted.pop()
        names.add(wanted_name)
        for index, statement in enumerate(statements):
            # A call such as torch.manual_seed(0) does not make what stands around it needed.
            changed = statement.writes_into - (
                modules if isinstance(statement.node, ast.Expr) else set()
            )
            if index not in taken and wanted_name in statement.binds | changed:
                taken.add(index)
                wanted += statement.uses - names
    return [statements[index] for index in sorted(taken)]


def mentions(name: str, source: str) -> bool:
    """Say whether a cell that cannot be parsed looks as if it would define `name`."""
    return bool(re.search(rf"^\s*((async )?def|class) +{re.escape(name)}\b", source, re.MULTILINE))
