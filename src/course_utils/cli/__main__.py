"""`python -m course_utils.cli`, for where the `course` script is not on PATH."""

import sys

from course_utils.cli import main

sys.exit(main())
