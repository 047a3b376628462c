"""Cut data/sample/ out of Online Retail II. Maintainers run it; users get its result.

    python -m deploy.make_sample FOLDER data/sample

FOLDER holds `interactions.parquet` (user_id, item_id, timestamp in seconds, event_type,
position, quantity, price, basket_id) and `items.parquet` (item_id, title). Chosen are customers
with a rich history: several purchases over most of a year or longer, some cancelled, of household
rather than wholesale size; of those the first CUSTOMERS by a hash of their number, which favours
nobody. All their events are kept, in the order of time, and every item with a title.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any, Final

CUSTOMERS: Final = 300
MOST_BYTES: Final = 3_000_000

RICH: Final = """
    select user_id from read_parquet($events) group by user_id
    having count(*) between 40 and 400
       and count(distinct basket_id) filter (where event_type = 'purchase') >= 6
       and count(*) filter (where event_type = 'cancel') >= 1
       and max(timestamp) - min(timestamp) >= 300 * 86400
       and median(quantity) filter (where event_type = 'purchase') <= 12
"""
EVENTS: Final = """
    select user_id, item_id, event_type, timestamp, quantity, round(price, 2)::float as price,
           basket_id
    from read_parquet($events) where list_contains($customers, user_id)
    order by timestamp, basket_id, position, item_id
"""
ITEMS: Final = """
    select item_id, title from read_parquet($items) where trim(title) <> '' order by item_id
"""


def make_sample(source: Path, target: Path) -> dict[str, int]:
    """Write items.parquet and interactions.parquet to `target`; return the counts."""
    import duckdb

    connection = duckdb.connect()
    events, items = str(source / "interactions.parquet"), str(source / "items.parquet")
    rich = [name for (name,) in connection.execute(RICH, {"events": events}).fetchall()]
    customers = sorted(rich, key=_draw)[:CUSTOMERS]
    target.mkdir(parents=True, exist_ok=True)
    chosen = connection.sql(EVENTS, params={"events": events, "customers": customers})
    sample = _write(chosen, target / "interactions.parquet")
    catalogue = _write(connection.sql(ITEMS, params={"items": items}), target / "items.parquet")
    return {"customers": len(customers), "interactions": sample, "items": catalogue}


def _draw(customer: str) -> str:
    return hashlib.sha256(customer.encode()).hexdigest()


def _write(result: Any, path: Path) -> int:
    import pyarrow.parquet

    table = result.to_arrow_table()
    pyarrow.parquet.write_table(table, path, compression="zstd", compression_level=19)
    return int(table.num_rows)


def main() -> None:
    """Command line: SOURCE TARGET."""
    if len(sys.argv) != 3:
        sys.exit("usage: python -m deploy.make_sample SOURCE TARGET")
    target = Path(sys.argv[2])
    counts = make_sample(Path(sys.argv[1]), target)
    size = sum(file.stat().st_size for file in target.glob("*.parquet"))
    print(", ".join(f"{count} {name}" for name, count in counts.items()), f"in {size} bytes")
    if size > MOST_BYTES:
        sys.exit(f"more than {MOST_BYTES} bytes: choose fewer customers")


if __name__ == "__main__":
    main()
