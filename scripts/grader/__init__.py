"""Grade notebooks of students without trusting them: see lessons/GRADING.md.

Who may do what, from the outside in:

    course       makes the assignment and keeps the grades, with nbgrader
    submissions  finds one notebook for each student and cleans a copy of it
    checker      a process of its own for each notebook; runs the checks, never a student's code
    sandbox      starts the worker behind walls, watches it, ends it
    worker       inside the walls: runs the student's cells and calls the student's functions
    wire         the plain data that checker and worker exchange
"""
