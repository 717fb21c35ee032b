"""The catalogue's page holds its data and needs no network."""

from __future__ import annotations

import json
import re
from dataclasses import replace

from rewardkit.papers.page import page
from rewardkit.papers.works import find, load, row


def rows_of(html):
    text = re.search(r"const rows = (\[.*\]);\nconst \$", html, re.DOTALL).group(1)
    return json.loads(text)


def test_the_page_holds_every_row_as_data():
    works = load()
    found = rows_of(page([row(w, set()) for w in works]))
    assert [r["slug"] for r in found] == [w.slug for w in works]
    assert set(found[0]) >= {"n", "state", "missing_components", "verdict", "mechanism"}


def test_text_cannot_end_the_script():
    work = replace(find(load(), "dpo"), title="</script><script>alert(1)//")
    html = page([row(work, set())])
    assert html.count("</script>") == 1
    assert rows_of(html)[0]["title"] == work.title


def test_nothing_is_fetched():
    html = page([])
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", html)
    assert "@import" not in html
