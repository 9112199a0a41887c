"""Grading a folder of submissions: read, judge in a sandbox, write down, report.

submitted/<student>/<lesson>/<lesson>.ipynb
    │ submission   what the learner wrote, whatever else happened to the notebook
    ▼
sandbox + proxy    the learner's code in a child, the checks in this process
    ▼
journal.jsonl      one line per graded submission (`records`), the only source of the rest
    ├─► gradebook.db   nbgrader's schema
    ├─► grades.csv, Canvas and Moodle files
    ├─► feedback/<student>/<lesson>.html
    └─► report.html    for the class
"""
