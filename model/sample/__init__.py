"""The sample marketplace that ships with namefree: invented skills and phrases, written for the purpose."""

from pathlib import Path

__all__ = ["SAMPLE_DIR"]

SAMPLE_DIR: Path = Path(__file__).parent / "data"
