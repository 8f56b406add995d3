"""`python -m klake`: the same as `klake`."""

from .cli.app import main

if __name__ == "__main__":
    main()
