"""A board that is not there: Python packages `xir` and `vart` backed by the emulator.

`site/` goes on PYTHONPATH and `bin/` (an `xdputil` that answers `query`) on PATH; then
the very application that runs on a board runs on a PC. Results are bit-exact; times
say nothing about a board, and everything that names itself says "emulated".
"""
