"""``python -m fedpost``."""

from fedpost.cli import main

if __name__ == "__main__":
    main()
