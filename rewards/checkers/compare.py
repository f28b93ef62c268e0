"""Whether an answer is the same as the gold: the whole is compared first, then its parts.

Parts are the items of lists, ranges, the sides of equations, the cells of matrices; `scalars` compares single values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rewards.answer_policy import AnswerPolicy
from rewards.checkers.forms import (
    FLIPPED,
    Collection,
    is_name,
    is_quantity,
    read_collection,
    read_matrix,
    relation_parts,
    sides,
    with_both_signs,
    without_parentheses,
)
from rewards.checkers.normalize import squeeze
from rewards.checkers.ranges import Ranges, read_ranges
from rewards.checkers.scalars import is_literal, is_number, same_expression, same_quantity
from rewards.checkers.words import same_words, without_label

_Part = TypeVar("_Part")
_INTEGER_PARAMETER = re.compile(r"\(? ?([a-z]) ?\\in ?\\mathbb ?\{?Z\}? ?\)?")
_VARIABLE = re.compile(r"(?<![A-Za-z\\])[a-df-z](?![A-Za-z])")


@dataclass(frozen=True)
class Comparison:
    """Compares a gold with an answer, both normalised, under a policy."""

    policy: AnswerPolicy

    def same(self, gold: str, answer: str) -> bool:
        """Whether the answer, or a part of it, is the same as the gold, or the part of it that it is compared with."""
        if squeeze(gold) == squeeze(answer):
            return True
        if is_number(gold) and is_number(answer):
            return same_quantity(gold, answer, self.policy)
        by_words = same_words(gold, answer, self.policy)
        if by_words is not None:
            return by_words
        gold, answer = without_label(gold), without_label(answer)
        ranges = read_ranges(gold), read_ranges(answer)
        if ranges[0] is not None and ranges[1] is not None:
            return self._same_ranges(gold, answer, ranges[0], ranges[1])
        wanted, given = self._items(gold), self._items(answer)
        if len(wanted) > 1 or len(given) > 1:
            return self._same_list(gold, answer, wanted, given)
        return self._same_equation(wanted[0], given[0])

    def _same_ranges(self, gold: str, answer: str, wanted: Ranges, given: Ranges) -> bool:
        if wanted.name and given.name and squeeze(wanted.name) != squeeze(given.name):
            return False
        if self.policy.intervals == "same" and wanted.is_relation != given.is_relation:
            return False
        left = _without_partners(wanted.intervals, given.intervals, self._same_collection)
        if left is None:
            return _is_set_expression(gold, answer) and same_expression(gold, answer, self.policy)
        return not left

    def _items(self, text: str) -> list[str]:
        """The items of a bare list or a set, each ± written out; a list of one for everything else."""
        found = read_collection(_member_of(text))
        items = found.items if found is not None and found.brackets in ("", "{}") else (text,)
        return [signed for item in items for signed in with_both_signs(item)]

    def _same_list(self, gold: str, answer: str, wanted: Sequence[str], given: Sequence[str]) -> bool:
        """Item by item, in any order unless the policy says otherwise, and name by name where both have names."""
        num_sets = sum(map(_is_set, (gold, answer)))
        if num_sets == 2:
            return self._includes(wanted, given) and self._includes(given, wanted)
        parameter, other = _integer_parameter(wanted), _integer_parameter(given)
        if parameter and other:
            wanted = [item for item in wanted if not _INTEGER_PARAMETER.fullmatch(item)]
            given = [_rename(item, other, parameter) for item in given if not _INTEGER_PARAMETER.fullmatch(item)]
        wanted_names, wanted_values = _names_and_values(wanted)
        given_names, given_values = _names_and_values(given)
        if len(wanted) != len(given):
            as_point = self._same_point(gold, given_names, given_values)
            return as_point or self._same_point(answer, wanted_names, wanted_values) or self._same_value(gold, answer)
        if len(wanted_names) > 1 and len(given_names) > 1:
            return self._matches(wanted, given)
        if wanted_names and given_names and not _are_of_one_name(wanted_names, given_names):
            return False
        if (wanted_names or given_names) and self.policy.equations == "same" and wanted_names != given_names:
            return False
        keeps_order = self.policy.list_order == "same" and not num_sets
        in_order = keeps_order or max(len(wanted_names), len(given_names)) > 1
        return self._matches(wanted_values, given_values, in_order)

    def _same_point(self, text: str, names: Sequence[str], values: Sequence[str]) -> bool:
        """``x = 3, y = -4`` is the point (3, -4), in the order of its own names or else of the alphabet."""
        left, _, right = text.rpartition("=")
        point, order = read_collection(right.strip()), read_collection(left.strip())
        if self.policy.equations == "same" or point is None or point.brackets != "()" or len(names) < 2:
            return False
        if len(names) != len(values) or (order is not None and sorted(map(squeeze, order.items)) != sorted(names)):
            return False
        value_of = dict(zip(names, values, strict=True))
        in_order = [squeeze(name) for name in order.items] if order is not None else sorted(names)
        return self._matches(point.items, [value_of[name] for name in in_order], in_order=True)

    def _matches(self, wanted: Sequence[str], given: Sequence[str], in_order: bool = False) -> bool:
        """Every item has its own partner."""
        if len(wanted) != len(given):
            return False
        if in_order:
            return all(self.same(*pair) for pair in zip(wanted, given, strict=True))
        return _without_partners(wanted, given, self.same) is not None

    def _includes(self, items: Sequence[str], others: Sequence[str]) -> bool:
        """Every one of `others` is among the items: how sets are compared, where repetition says nothing."""
        return all(any(self.same(item, other) for item in items) for other in others)

    def _same_equation(self, gold: str, answer: str) -> bool:
        """What must be equal to what, when gold or answer is an equation or another relation."""
        answer = _before_approx(answer)
        if any(relation_parts(text)[1] for text in (gold, answer)):
            return self._same_relation(gold, answer)
        wanted, given = sides(gold), sides(answer)
        if self.policy.equations == "same" and len(wanted) != len(given):
            return False
        pairs = _pair_sides(wanted, given)
        if pairs is not None:
            return bool(pairs) and all(self._same_value(*pair) for pair in pairs)
        from rewards.checkers import symbolic

        # A formula for y may be rearranged, not multiplied: that would be the equation still to be solved.
        only_rearranged = is_name(wanted[0])
        return not is_literal(gold, answer) and symbolic.same_equation(wanted, given, only_rearranged)

    def _same_relation(self, gold: str, answer: str) -> bool:
        """Relations that are no range: the same sides with the same signs between them, or turned round."""
        (wanted, signs), (given, others) = relation_parts(gold), relation_parts(answer)
        if len(wanted) != len(given):
            name, value = (wanted, given) if len(wanted) > len(given) else (given, wanted)
            is_member = len(name) == 2 and "\\in" in (*signs, *others) and is_name(name[0])
            return is_member and not is_number(name[1]) and self.same(name[1], value[0])
        if signs == others and all(self.same(*pair) for pair in zip(wanted, given, strict=True)):
            return True
        if signs == [FLIPPED.get(sign, sign) for sign in reversed(others)] and "\\in" not in signs:
            return all(self.same(*pair) for pair in zip(wanted, reversed(given), strict=True))
        return False

    def _same_value(self, gold: str, answer: str) -> bool:
        """Two things without equals signs outside their brackets."""
        if squeeze(gold) == squeeze(answer):
            return True
        gold, answer = without_parentheses(gold), without_parentheses(answer)
        wanted, given = read_collection(gold), read_collection(answer)
        if wanted is not None and given is not None:
            return self._same_collection(wanted, given)
        if wanted is not None or given is not None:
            return self._same_as_single(gold, answer, wanted or given)
        matrices = read_matrix(gold), read_matrix(answer)
        if matrices[0] is not None and matrices[1] is not None:
            return self._same_matrix(matrices[0], matrices[1])
        return same_quantity(gold, answer, self.policy)

    def _same_collection(self, wanted: Collection, given: Collection) -> bool:
        kinds = {wanted.brackets, given.brackets}
        is_loose = self.policy.brackets == "any" and not kinds & {"[)", "(]"}
        if len(kinds) > 1 and kinds not in ({"", "{}"}, {"()", "<>"}) and not is_loose:
            return False
        in_order = "{}" not in kinds and (kinds != {""} or self.policy.list_order == "same")
        return self._matches(wanted.items, given.items, in_order)

    def _same_as_single(self, gold: str, answer: str, found: Collection | None) -> bool:
        """A set of one thing is that thing; sets may be written as unions and intersections."""
        if found is not None and found.brackets == "{}" and len(found.items) == 1:
            return self.same(found.items[0], answer if read_collection(gold) else gold)
        return _is_set_expression(gold, answer) and same_expression(gold, answer, self.policy)

    def _same_matrix(self, wanted: list[list[str]], given: list[list[str]]) -> bool:
        if [len(row) for row in wanted] != [len(row) for row in given]:
            return False
        rows = zip(wanted, given, strict=True)
        return all(self.same(*cells) for left, right in rows for cells in zip(left, right, strict=True))


def _without_partners(
    wanted: Sequence[_Part], given: Sequence[_Part], same: Callable[[_Part, _Part], bool]
) -> list[_Part] | None:
    """What is left of `given` when each of `wanted` has taken a partner; None when one finds none.

    Those that are written alike are paired off first, since comparing the others may take long.
    """
    left = list(given)
    for one in sorted(wanted, key=lambda one: one not in left):
        partner = next((other for other in sorted(left, key=lambda other: other != one) if same(one, other)), None)
        if partner is None:
            return None
        left.remove(partner)
    return left


def _is_set_expression(gold: str, answer: str) -> bool:
    return any(sign in text for sign in ("\\cup", "\\cap", "\\setminus") for text in (gold, answer))


def _before_approx(text: str) -> str:
    """The exact value in front of ≈; what stands behind it where nothing or only a name is in front."""
    before, sign, after = (part.strip() for part in text.partition("\\approx"))
    if not sign:
        return text
    return after if not before or is_name(before) else before


def _member_of(text: str) -> str:
    """``x \\in \\{1, 2\\}`` and ``S = \\{1, 2\\}`` are that set."""
    parts, relations = relation_parts(text)
    if (found := sides(text)) and len(found) == 2 and is_name(found[0]) and found[1].startswith("\\{"):
        return found[1]
    return parts[1] if relations == ["\\in"] and is_name(parts[0]) and parts[1].startswith("\\{") else text


def _is_set(text: str) -> bool:
    found = read_collection(_member_of(text))
    return found is not None and found.brackets == "{}"


def _integer_parameter(items: Sequence[str]) -> str | None:
    """The k of the one item ``k \\in \\mathbb{Z}``; None when there is no such item, or several."""
    found = [match[1] for item in items if (match := _INTEGER_PARAMETER.fullmatch(item))]
    return found[0] if len(found) == 1 else None


def _are_of_one_name(wanted: Sequence[str], given: Sequence[str]) -> bool:
    """The same names, or one name and the same with indices: x and x_1, x_2."""
    one, others = (wanted, given) if len(wanted) == 1 else (given, wanted)
    return len(one) == 1 and all(other == one[0] or other.startswith(f"{one[0]}_") for other in others)


def _rename(text: str, old: str, new: str) -> str:
    return re.sub(rf"(?<![A-Za-z\\]){old}(?![A-Za-z])", new, text)


def _names_and_values(items: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """The different names of ``x = 2, x = 5`` or ``n = 2, 3, 4`` and the values; no names if not all items fit."""
    names: dict[str, None] = {}
    values = []
    for position, item in enumerate(items):
        found = sides(item)
        if len(found) == 2 and is_name(found[0]):
            names[squeeze(found[0])] = None
        elif len(found) > 1 or (position and len(names) > 1):
            return (), list(items)
        values.append(found[-1])
    return tuple(names), values


def _is_named(found: Sequence[str]) -> bool:
    """Whether the first side is the name of the others, and does not stand in them as well, as in ``x = 2x``."""
    return len(found) > 1 and is_name(found[0]) and not _stands_in(found[0], found[1:])


def _stands_in(name: str, others: Sequence[str]) -> bool:
    return bool(re.search(rf"(?<![A-Za-z\\]){re.escape(name)}(?![A-Za-z])", "=".join(others)))


def _pair_sides(wanted: list[str], given: list[str]) -> list[tuple[str, str]] | None:
    """What must be equal to what; empty when the two cannot match, None when both are equations to compare as such."""
    gold_is_named, answer_is_named = (_is_named(found) for found in (wanted, given))
    if gold_is_named and answer_is_named:
        if squeeze(wanted[0]) != squeeze(given[0]):
            return []
        return [(wanted[-1], side) for side in given[1:]]
    if gold_is_named:
        if len(given) == 1:
            return [(wanted[-1], given[0])]
        if len(given) == 2 and squeeze(given[1]) == squeeze(wanted[0]):
            return [(wanted[-1], given[0])]
        return None if _VARIABLE.search(wanted[-1]) else []
    if len(wanted) == 1:
        is_value = len(given) > 1 and is_quantity(given[0]) and not _stands_in(given[0], given[1:])
        return [(wanted[0], side) for side in (given[1:] if is_value else given)]
    return None if len(given) > 1 else []
