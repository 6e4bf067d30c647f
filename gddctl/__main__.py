"""``python -m gddctl``."""

from gddctl.cli import main

if __name__ == "__main__":
    main()
