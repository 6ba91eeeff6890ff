"""Writes numbers to many files in turn, in a container, and says so after each; none but the last may be missing.

Arguments: a directory, and how many files it has. A line is `<number> <seconds since the epoch>`. Number `n` goes into
file `n % count`, appended as a line, so that at any one moment the numbers in all files follow one another.
"""

import sys
import time
from pathlib import Path

directory, count = Path(sys.argv[1]), int(sys.argv[2])
number = 0
files = [Path(directory, f"{name:04}.log").open("a+b", buffering=0) for name in range(count)]  # noqa: SIM115
for file in files:
    file.seek(0)
    number = max([number, *(int(line) for line in file.read().split())])
while True:
    number += 1
    files[number % count].write(b"%d\n" % number)
    print(number, f"{time.time():.6f}", flush=True)
    time.sleep(0.001)
