"""docs/: references lead to headings, files exist, every page is indexed, data can be laid out."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainer.data.folder_source import FolderSource

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
METHODS = (DOCS / "methods.md").read_text()
NUMBERED = re.findall(r"^#{2,3} (\d+(?:\.\d+)?) ", METHODS, re.MULTILINE)
FOLDERS = ("models", "streams", "trainer", "deploy", "tests", "examples", "docs")
THIS = Path(__file__)
TABLE_OF_A_RUN = re.compile(r"docs/results/[^/]+/")  # made by palate evaluate


def references(text: str) -> list[str]:
    """Sections of docs/methods.md that a text refers to: "methods §1.2, §3" → 1.2 and 3."""
    found = re.findall(r"methods\s+(§\d[\d.]*(?:(?:,| and|, and)\s+§\d[\d.]*)*)", text)
    return [number.rstrip(".") for group in found for number in re.findall(r"§([\d.]+)", group)]


def sources() -> Iterator[tuple[str, str]]:
    """(path, text) of all code and pages but this file, whose examples refer to nothing."""
    files = [path for name in FOLDERS for path in (ROOT / name).rglob("*")]
    for path in sorted([*files, ROOT / "README.md", ROOT / "CHANGELOG.md"]):
        if path.suffix in {".py", ".md", ".sh", ".toml"} and path != THIS:
            yield str(path.relative_to(ROOT)), path.read_text()


def test_every_reference_to_methods_leads_to_a_heading() -> None:
    found = [(path, number) for path, text in sources() for number in references(text)]
    assert len(found) > 30
    assert [(path, number) for path, number in found if number not in NUMBERED] == []


def test_a_reference_that_leads_nowhere_would_be_found() -> None:
    assert references("(methods §1.2, §99.1); methods\n§8. And §3.") == ["1.2", "99.1", "8"]
    assert "99.1" not in NUMBERED


def test_no_section_sign_of_the_code_leaves_its_page_unsaid() -> None:
    code = [(path, text) for path, text in sources() if path.endswith(".py")]
    assert [path for path, text in code if text.count("§") != len(references(text))] == []


def test_every_file_that_methods_names_exists() -> None:
    named = re.findall(r"`([\w.-]+(?:/[\w.-]+)+)`", METHODS)
    assert len(set(named)) > 40
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_formula_has_a_source_and_a_file() -> None:
    sections = re.split(r"^### ", METHODS, flags=re.MULTILINE)[1:]
    assert len(sections) > 40
    without = [one.splitlines()[0] for one in sections if not re.search(r"\*\*Source\*\*: \S", one)]
    assert without == []
    without = [one.splitlines()[0] for one in sections if not re.search(r"\*\*Code\*\*:\s+`", one)]
    assert without == []


def test_sections_are_numbered_in_order() -> None:
    numbers = [tuple(map(int, number.split("."))) for number in NUMBERED]
    assert numbers == sorted(set(numbers))


def headings(page: Path) -> set[str]:
    """Anchors of a page's headings, as the usual hosts make them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    named = set(re.findall(r'<a id="([\w-]+)">', text))
    return named | {
        re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_anchor_of_a_link_is_a_heading(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s#]*)#([^)\s]+)\)", page.read_text())
    local = [(page.parent / path if path else page, anchor) for path, anchor in links]
    assert [anchor for path, anchor in local if anchor not in headings(path)] == []


def test_every_page_is_in_the_index() -> None:
    index = DOCS / "README.md"
    linked = {
        (DOCS / link).resolve()
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", index.read_text())
    }
    pages = {page for page in PAGES[1:] if not TABLE_OF_A_RUN.match(str(page.relative_to(ROOT)))}
    assert pages - linked == {index}


def test_a_page_that_reads_data_not_shipped_says_where_they_are_at_its_top() -> None:
    lacking = [
        str(page.relative_to(ROOT))
        for page in PAGES
        if "--data var/data/" in page.read_text() and "data.md" not in page.read_text()[:600]
    ]
    assert lacking == []


def test_commands_of_hand_written_pages_stay_inside_the_repository() -> None:
    pages = [page for page in PAGES if not TABLE_OF_A_RUN.match(str(page.relative_to(ROOT)))]
    assert [str(page) for page in pages if re.search(r"--data \.\./", page.read_text())] == []


def run_recipe(heading: str, folder: Path) -> FolderSource:
    """Run the Python block under a heading of docs/data.md in `folder`; what it leaves there."""
    section = (DOCS / "data.md").read_text().split(f"\n## {heading}\n")[1]
    block = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert block is not None
    subprocess.run([sys.executable, "-c", block[1]], cwd=folder, check=True)
    return FolderSource(folder)


def told(source: FolderSource) -> list[tuple[str, str, str, float | None]]:
    """(user, item, type, quantity) of all interactions, in file order."""
    table = source.interactions(0, ("user_id", "item_id", "type", "quantity"))
    return [tuple(row.values()) for row in table.to_pylist()]  # type: ignore[misc]


def test_the_recipe_for_online_retail_makes_a_folder_that_can_be_read(tmp_path: Path) -> None:
    head = "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country\n"
    (tmp_path / "2009.csv").write_text(
        head
        + "489434,85048,GLASS  BALL,12,2009-12-01 07:45:00,6.95,13085.0,United Kingdom\n"
        + "489434,85048,GLASS  BALL,2,2009-12-01 07:45:00,6.95,13085.0,United Kingdom\n"
        + "489434,POST,POSTAGE,1,2009-12-01 07:45:00,18,13085.0,United Kingdom\n"
        + "489435,22041,RECORD FRAME,1,2009-12-01 07:46:00,2.1,,United Kingdom\n"
        + "540000,22041,RECORD FRAME,9,2010-12-02 09:00:00,2.1,13085.0,United Kingdom\n"
    )
    (tmp_path / "2010.csv").write_text(
        head
        + "540000,22041,RECORD FRAME,9,2010-12-02 09:00:00,2.1,13085,United Kingdom\n"
        + "C540001,85048,GLASS BALL,-3,2010-12-03 09:00:00,6.95,13085,United Kingdom\n"
    )
    source = run_recipe("Online Retail II", tmp_path)
    assert told(source) == [
        ("13085", "85048", "purchase", 14.0),
        ("13085", "22041", "purchase", 9.0),
        ("13085", "85048", "cancel", 3.0),
    ]
    titles = {item.item_id: item.title for item in source.items()}
    assert titles == {"85048": "GLASS BALL", "22041": "RECORD FRAME"}


def test_the_recipe_for_beauty_makes_a_folder_that_can_be_read(tmp_path: Path) -> None:
    reviews = [("u", "b", 1_400_000_000), ("u", "a", 1_300_000_000), ("t", "a", 1_350_000_000)]
    with gzip.open(tmp_path / "reviews_Beauty_5.json.gz", "wt") as file:
        for user, item, time in reviews:
            row = {"reviewerID": user, "asin": item, "unixReviewTime": time, "overall": 5.0}
            file.write(json.dumps(row) + "\n")
    with gzip.open(tmp_path / "meta_Beauty.json.gz", "wt") as file:
        for item in ("a", "b", "never reviewed"):
            path = [["Beauty", "Makeup"]]
            file.write(f"{ {'asin': item, 'title': f'Title {item}', 'categories': path} }\n")
    source = run_recipe("Amazon Beauty 2014, 5-core", tmp_path)
    assert [row[:3] for row in told(source)] == [
        ("t", "a", "purchase"),
        ("u", "a", "purchase"),
        ("u", "b", "purchase"),
    ]
    assert [(item.item_id, item.title, item.categories) for item in source.items()] == [
        ("a", "Title a", ("Beauty", "Makeup")),
        ("b", "Title b", ("Beauty", "Makeup")),
    ]
