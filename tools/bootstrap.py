"""Make `.venv` when it is missing, broken or stale; `make` runs this before anything else.

This file and `pythons.py` use only what Python 3.6 understands, so that a Python which is too old
still finds a newer one, or says that there is none. The work is in `environment.py`.
"""

import os
import sys

import pythons


def main() -> int:
    chosen = os.environ.get("PYTHON")
    try:
        if os.name == "nt":
            raise pythons.SetupError("On Windows the course runs in WSL: wsl --install")
        if sys.version_info < pythons.MINIMUM:
            python = pythons.find(chosen)
            os.execv(python, [python, __file__])
        import environment

        environment.set_up(environment.Place.of_this_checkout(), chosen)
    except pythons.SetupError as error:
        pythons.say(str(error))
        return 1
    except OSError as error:
        pythons.say("The set-up failed: " + str(error))
        return 1
    except KeyboardInterrupt:
        pythons.say("\nStopped. Run the same command again to finish the set-up.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
