"""A search tool over a small knowledge base, ranked by BM25."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from rewardkit.registry import entry

_WORD = re.compile(r"\w+")


@entry(
    "policies:search",
    tags=("tool", "retrieval"),
    source="Robertson and Zaragoza 2009, The Probabilistic Relevance Framework, eq. 3.15",
)
class Search:
    """Documents by how well they match a query: ``sum_w idf(w) tf (k1 + 1) / (tf + k1 (1 - b + b length / mean))``,
    ``idf = ln(1 + (N - df + 0.5) / (df + 0.5))``; ties by order.

    Args:
        documents: texts. titles: what is matched with the query in place of the documents themselves, one for each.
        most: how many :meth:`lookup` shows. k1, b: saturation, and how much length counts.

    >>> search = Search(["Ann lives in Oslo.", "Bob lives in Rome."], most=1)
    >>> search.lookup("where does Bob live")
    'Bob lives in Rome.'
    """

    def __init__(
        self,
        documents: Sequence[str],
        *,
        titles: Sequence[str] | None = None,
        most: int = 3,
        k1: float = 1.2,
        b: float = 0.75,
    ) -> None:
        if titles is not None and len(titles) != len(documents):
            raise ValueError(f"there are {len(titles)} titles for {len(documents)} documents")
        if not documents or most < 1:
            raise ValueError(f"Search needs documents and most >= 1, not {len(documents)} and {most}")
        self.documents, self.most, self.k1, self.b = list(documents), most, k1, b
        self._counts = [Counter(words(d)) for d in (documents if titles is None else titles)]
        self._lengths = [c.total() for c in self._counts]
        self._mean = max(1.0, sum(self._lengths) / len(documents))
        self._having: dict[str, list[int]] = {}
        for i, counts in enumerate(self._counts):
            for word in counts:
                self._having.setdefault(word, []).append(i)

    def scores(self, query: str) -> dict[int, float]:
        """The score of each document that shares a word with the query."""
        found: dict[int, float] = {}
        for word in set(words(query)):
            having = self._having.get(word, [])
            rare = math.log(1 + (len(self.documents) - len(having) + 0.5) / (len(having) + 0.5))
            for i in having:
                count = self._counts[i][word]
                long = 1 - self.b + self.b * self._lengths[i] / self._mean
                found[i] = found.get(i, 0.0) + rare * count * (self.k1 + 1) / (count + self.k1 * long)
        return found

    def lookup(self, query: str) -> str:
        """Look up what the knowledge base says.

        Args:
            query: words to search for.
        """
        found = self.scores(query)
        best = sorted(found, key=lambda i: (-found[i], i))[: self.most]
        return "\n".join(self.documents[i] for i in best) or "Nothing found."


def words(text: str) -> list[str]:
    """Words in lower case."""
    return _WORD.findall(text.lower())
