"""Writes the code blocks into the chapters of the course.

python -m tools.course            after a change in docs/course/blocks or in a file that an excerpt shows
python -m tools.course --check    change nothing; tell what is out of date
"""

import argparse
import sys

from tools.course.blocks import LANGUAGES, CourseError, chapters, read_blocks, with_blocks
from tools.service import PROJECT


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if something is out of date")
    check = parser.parse_args().check
    outdated = 0
    try:
        for language in LANGUAGES:
            for number, path in chapters(language).items():
                old = path.read_text(encoding="utf-8")
                new = with_blocks(old, read_blocks(number), f"{language}/{path.name}")
                if new == old:
                    continue
                outdated += 1
                print(f"{path.relative_to(PROJECT)}: {'out of date' if check else 'written'}")
                if not check:
                    path.write_text(new, encoding="utf-8", newline="\n")
    except CourseError as exc:
        print(f"course: {exc}", file=sys.stderr)
        return 1
    return 1 if check and outdated else 0


if __name__ == "__main__":
    sys.exit(main())
