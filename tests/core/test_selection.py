"""The rules by which a label is chosen, against a second statement of them."""

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedrock_budget.core.selection import Choice, Fits, Mode, Refusal, mode_of, select, sticky_target


class Label(NamedTuple):
    """The least that selection needs of a label."""

    label: str
    quota_pico_usd: int | None
    spend: int = 0

    @property
    def account(self) -> "Label":
        return self


PREMIUM = Label("premium", 100)
STANDARD = Label("standard", 50)
ECONOMY = Label("economy", 20)
CHAIN = (PREMIUM, STANDARD, ECONOMY)
PINNED_OUTSIDE = Label("frontier", 0)


def spent(*spends: int) -> tuple[Label, ...]:
    """The chain after so much spend of each label."""
    return tuple(each._replace(spend=spend) for each, spend in zip(CHAIN, spends, strict=True))


@st.composite
def situations(draw: st.DrawFn) -> dict[str, object]:
    quotas = st.one_of(st.none(), st.integers(0, 4))
    labels = draw(st.lists(st.tuples(quotas, st.integers(0, 5)), min_size=1, max_size=5))
    chain = tuple(Label(f"label{n}", quota, spend) for n, (quota, spend) in enumerate(labels))
    places = st.integers(0, len(chain) - 1)
    asked = draw(places)
    fitting = draw(st.one_of(st.none(), st.sets(places).map(lambda some: some | {asked})))  # made for what was asked
    pinned = draw(st.one_of(st.none(), st.none(), st.integers(-1, len(chain) - 1)))
    return {
        "chain": chain,
        "asked": asked,
        "explicit": draw(st.booleans()),
        "sticky": draw(places),
        "override": None if pinned is None else chain[pinned] if pinned >= 0 else PINNED_OUTSIDE,
        "fitting": None if fitting is None else {chain[place].label for place in fitting},
        "serve_last": draw(st.booleans()),
    }


def chosen(situation: dict[str, object]) -> Choice | Refusal:
    """What `select` makes of a situation."""
    arguments = dict(situation)
    fitting = arguments.pop("fitting")
    fits = None if fitting is None else lambda each: each.label in fitting
    return select(arguments.pop("chain"), fits=fits, **arguments)  # type: ignore[arg-type]


def expected(s: dict[str, object]) -> Choice | Refusal:
    """The rules again, as sets of places rather than as a walk."""
    chain, fitting = s["chain"], s["fitting"]
    assert isinstance(chain, tuple)
    can_go = {n for n, each in enumerate(chain) if fitting is None or each.label in fitting}  # type: ignore[operator]
    pinned = s["override"]
    if isinstance(pinned, Label):
        place = chain.index(pinned) if pinned in chain else -1
        if fitting is None or pinned.label in fitting:  # type: ignore[operator]
            return Choice(place, "override")
        return Refusal("not_portable", (place,))
    asked, sticky = s["asked"], s["sticky"]
    allowed = {n for n in range(len(chain)) if n >= asked and n >= sticky}  # type: ignore[operator]
    solvent = {n for n in allowed if chain[n].quota_pico_usd is None or chain[n].quota_pico_usd > chain[n].spend}
    if solvent & can_go:
        place = min(solvent & can_go)
        if place == asked:
            return Choice(place, "requested" if s["explicit"] else "default")
        used_up_before = {n for n in allowed - solvent if n < place}
        return Choice(place, "quota" if used_up_before else "sticky")
    last = {n for n in allowed & can_go if chain[n].quota_pico_usd != 0}
    if s["serve_last"] and last:
        return Choice(max(last), "exhausted")
    return Refusal("not_portable", tuple(sorted(solvent))) if solvent else Refusal("exhausted", ())


@given(situations())
@settings(max_examples=600, deadline=None)
def test_selection_is_what_the_rules_say(situation: dict[str, object]) -> None:
    assert chosen(situation) == expected(situation)


@given(situations())
@settings(max_examples=150, deadline=None)
def test_selection_never_goes_to_a_label_before_the_sticky_one(situation: dict[str, object]) -> None:
    outcome = chosen({**situation, "override": None})
    assert isinstance(outcome, Refusal) or outcome.place >= situation["sticky"]  # type: ignore[operator]


@given(situations())
@settings(max_examples=150, deadline=None)
def test_selection_never_goes_to_a_label_before_the_one_asked_for(situation: dict[str, object]) -> None:
    outcome = chosen({**situation, "override": None})
    assert isinstance(outcome, Refusal) or outcome.place >= situation["asked"]  # type: ignore[operator]


@given(situations())
@settings(max_examples=150, deadline=None)
def test_a_label_at_its_quota_is_served_only_by_an_override_or_as_the_last(situation: dict[str, object]) -> None:
    outcome = chosen(situation)
    if isinstance(outcome, Choice) and outcome.reason not in {"override", "exhausted"}:
        label = situation["chain"][outcome.place]  # type: ignore[index]
        assert label.quota_pico_usd is None or label.spend < label.quota_pico_usd
    elif isinstance(outcome, Choice) and outcome.reason == "exhausted":
        assert situation["serve_last"]
        assert situation["chain"][outcome.place].quota_pico_usd  # type: ignore[index]


@given(situations())
@settings(max_examples=150, deadline=None)
def test_a_body_never_goes_to_a_label_that_it_does_not_fit(situation: dict[str, object]) -> None:
    outcome = chosen({**situation, "override": None})
    if isinstance(outcome, Choice) and situation["fitting"] is not None:
        assert situation["chain"][outcome.place].label in situation["fitting"]  # type: ignore[index, operator]


@given(situations(), st.integers(0, 4))
@settings(max_examples=150, deadline=None)
def test_more_spend_never_brings_back_an_earlier_label(situation: dict[str, object], place: int) -> None:
    situation = {**situation, "override": None, "serve_last": False}
    chain = situation["chain"]
    assert isinstance(chain, tuple)
    more = tuple(each._replace(spend=each.spend + (n == place)) for n, each in enumerate(chain))
    before, after = chosen(situation), chosen({**situation, "chain": more})
    if isinstance(before, Choice):
        assert isinstance(after, Refusal) or after.place >= before.place
    else:
        assert isinstance(after, Refusal)


@given(situations())
@settings(max_examples=200, deadline=None)
def test_an_override_decides_whatever_is_spent_asked_for_or_sticky(situation: dict[str, object]) -> None:
    pinned = situation["chain"][-1]  # type: ignore[index]
    outcome = chosen({**situation, "override": pinned, "fitting": None})
    assert outcome == Choice(len(situation["chain"]) - 1, "override")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spends", "given_", "outcome"),
    [
        ((0, 0, 0), {}, Choice(0, "default")),
        ((99, 0, 0), {}, Choice(0, "default")),
        ((100, 0, 0), {}, Choice(1, "quota")),
        ((101, 50, 0), {}, Choice(2, "quota")),
        ((0, 0, 0), {"explicit": True}, Choice(0, "requested")),
        ((0, 0, 0), {"asked": 1, "explicit": True}, Choice(1, "requested")),
        ((0, 50, 0), {"asked": 1, "explicit": True}, Choice(2, "quota")),
        ((0, 0, 0), {"sticky": 1}, Choice(1, "sticky")),
        ((0, 50, 0), {"sticky": 1}, Choice(2, "quota")),
        ((0, 0, 0), {"sticky": 1, "asked": 1, "explicit": True}, Choice(1, "requested")),
        ((0, 0, 0), {"sticky": 1, "asked": 2, "explicit": True}, Choice(2, "requested")),
        ((0, 0, 0), {"sticky": 2, "asked": 1, "explicit": True}, Choice(2, "sticky")),
        ((100, 50, 20), {}, Refusal("exhausted", ())),
        ((100, 50, 20), {"serve_last": True}, Choice(2, "exhausted")),
        ((0, 50, 20), {"sticky": 1}, Refusal("exhausted", ())),
        ((0, 0, 0), {"override": STANDARD}, Choice(1, "override")),
        ((0, 50, 0), {"override": STANDARD, "sticky": 2}, Choice(1, "override")),
        ((0, 0, 0), {"override": PINNED_OUTSIDE}, Choice(-1, "override")),
    ],
)
def test_reasons(spends: tuple[int, ...], given_: dict[str, object], outcome: Choice | Refusal) -> None:
    assert select(spent(*spends), **given_) == outcome  # type: ignore[arg-type]


def only(*labels: str) -> Fits:
    return lambda candidate: candidate.label in labels


@pytest.mark.parametrize(
    ("spends", "fits", "given_", "outcome"),
    [
        ((0, 0, 0), ("premium", "economy"), {}, Choice(0, "default")),
        ((100, 0, 0), ("premium", "economy"), {}, Choice(2, "quota")),
        ((0, 0, 0), ("premium", "economy"), {"sticky": 1}, Choice(2, "sticky")),
        ((100, 0, 0), ("premium",), {}, Refusal("not_portable", (1, 2))),
        ((100, 0, 20), ("premium", "economy"), {}, Refusal("not_portable", (1,))),
        ((100, 0, 20), ("premium",), {"serve_last": True}, Choice(0, "exhausted")),
        ((100, 50, 20), ("premium",), {}, Refusal("exhausted", ())),
        ((100, 50, 20), ("premium",), {"serve_last": True}, Choice(0, "exhausted")),
        ((100, 50, 20), (), {"serve_last": True}, Refusal("exhausted", ())),
        ((0, 0, 0), ("premium",), {"override": STANDARD}, Refusal("not_portable", (1,))),
        ((0, 0, 0), ("standard",), {"override": STANDARD}, Choice(1, "override")),
        ((0, 0, 0), ("premium",), {"override": PINNED_OUTSIDE}, Refusal("not_portable", (-1,))),
    ],
)
def test_bodies_that_are_not_portable(
    spends: tuple[int, ...], fits: tuple[str, ...], given_: dict[str, object], outcome: Choice | Refusal
) -> None:
    assert select(spent(*spends), fits=only(*fits), **given_) == outcome  # type: ignore[arg-type]


def test_a_quota_of_nothing_is_never_served_and_no_quota_always() -> None:
    nothing, unlimited = Label("a", 0), Label("b", None, 10**18)
    assert select([nothing, unlimited]) == Choice(1, "quota")
    assert select([nothing], serve_last=True) == Refusal("exhausted", ())
    assert select([Label("a", 100, 100), nothing], serve_last=True) == Choice(0, "exhausted")


def test_an_exhausted_chain_is_not_served_from_before_its_start() -> None:
    nothing = Label("a", 0)
    assert select([PREMIUM, nothing], asked=1, serve_last=True) == Refusal("exhausted", ())
    assert select([PREMIUM, nothing], sticky=1, serve_last=True) == Refusal("exhausted", ())


def test_an_empty_chain_has_no_label() -> None:
    assert select([]) == Refusal("exhausted", ())
    assert select([], override=PREMIUM) == Choice(-1, "override")


@pytest.mark.parametrize(
    ("spend", "quota", "pct", "result"),
    [
        (94, 100, 95, "normal"),
        (95, 100, 95, "tight"),
        (96, 100, 95, "tight"),
        (10**18, None, 95, "normal"),
        (0, 0, 95, "tight"),
        (0, 1, 1, "normal"),
        (99, 100, 100, "normal"),
        (100, 100, 100, "tight"),
        (949_999_999_999, 10**12, 95, "normal"),  # exact, where a float would do too
        (95 * 10**24 - 1, 10**26, 95, "normal"),  # exact, where it would not
    ],
)
def test_modes(spend: int, quota: int | None, pct: int, result: Mode) -> None:
    assert mode_of(spend, quota, pct) == result


CHAINS = st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 4)), st.integers(0, 5)), min_size=1, max_size=5)


@given(CHAINS, st.integers(0, 4))
@settings(max_examples=300, deadline=None)
def test_the_sticky_state_moves_to_the_first_label_with_quota_left_and_only_forward(
    labels: list[tuple[int | None, int]], current: int
) -> None:
    chain = [Label(f"label{n}", quota) for n, (quota, _) in enumerate(labels)]
    settled = [spend for _, spend in labels]
    left = [n for n, (quota, spend) in enumerate(labels) if quota is None or spend < quota]
    first = left[0] if left else None
    target = sticky_target(chain, settled, current)
    assert target == (first if first is not None and first > current else None)


@pytest.mark.parametrize(
    ("settled", "current", "target"),
    [
        ((99, 0, 0), 0, None),
        ((100, 0, 0), 0, 1),
        ((100, 50, 0), 0, 2),
        ((100, 50, 0), 1, 2),
        ((100, 50, 20), 0, None),
        ((99, 50, 0), 1, None),  # an earlier label has quota left: stay, but do not go on
        ((100, 0, 0), 1, None),
    ],
)
def test_sticky_targets(settled: tuple[int, ...], current: int, target: int | None) -> None:
    assert sticky_target(CHAIN, settled, current) == target
