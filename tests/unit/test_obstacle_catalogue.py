"""The catalogue of obstacles is sound, and what is made of it is up to date."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.obstacles.catalogue import PAGE, Obstacle, catalogue, page

ROOT = Path(__file__).resolve().parents[2]
OBSTACLES = catalogue()

each_obstacle = pytest.mark.parametrize("obstacle", OBSTACLES, ids=lambda obstacle: obstacle.id)


def test_the_page_is_what_the_catalogue_says() -> None:
    assert PAGE.read_text() == page(), "write it anew: .venv/bin/python tests/obstacles/catalogue.py"


def test_each_obstacle_is_another_one() -> None:
    for name in ("id", "title"):
        assert len({getattr(obstacle, name) for obstacle in OBSTACLES}) == len(OBSTACLES)


@each_obstacle
def test_our_part_is_where_the_catalogue_says(obstacle: Obstacle) -> None:
    assert obstacle.where
    for path, text in obstacle.where.items():
        assert text in (ROOT / path).read_text()


def test_the_readme_does_not_say_again_what_the_page_says() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [obstacle.error for obstacle in OBSTACLES if obstacle.error in readme] == []
