"""The command `noahnas`, and `python -m noahnas`: signals are heeded from the first import on."""

from noahnas.stopping import command


def main() -> None:
    """Run the command line; a user's mistake ends in one message and exit code 2."""
    with command():
        from noahnas.cli import app

        app()


if __name__ == "__main__":
    main()
