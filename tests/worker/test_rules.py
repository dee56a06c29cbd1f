"""The rules of a worker, one by one.  `test_rules_model` mixes them."""

import pytest

from queueber.client_core.errors import NotConnected, OutcomeUnknown
from queueber.errors import InvalidRequest, Overloaded, Unimplemented
from queueber.units import SpanMs
from queueber.values import Action, AddTo, Outcome, Settled
from queueber.worker.actions import GiveBack
from queueber.worker.policy import ENDING_SECONDS, FORCED_SECONDS, SETTLE_SECONDS, SLOW_SECONDS, TICK_SECONDS
from queueber.worker.polling import PollMode
from queueber.worker.settling import HAND_OFF_DEFERRED, HAND_OFF_WAITS
from queueber.worker.verdicts import REMOVE, UNASKED_CANCEL, Defer, Done, Fail, Reject, verdict_of_error
from tests.support.worker_scene import SPAN, Scene

REMOVED, FAILED, DEFERRED, REJECTED = Action.REMOVE, Action.FAIL, Action.DEFER, Action.REJECT


def waits_after(scene, error, times):
    """Answer *times* settles with *error*; return the seconds until each is sent again."""
    waits = []
    for _ in range(times):
        scene.answer_settles(error)
        assert not scene.settles
        before = scene.now
        while not scene.settles:
            scene.now = scene.rules.wake_at(scene.now)
            scene.act()
        waits.append(round(scene.now - before, 2))
    return waits


class TestPlaces:
    def test_a_worker_polls_for_as_many_items_as_it_has_places(self):
        scene = Scene(concurrency=2, prefetch=3)
        assert scene.polls == [5]

    def test_at_most_concurrency_handlers_run_and_the_rest_waits(self):
        scene = Scene(concurrency=2, prefetch=3)
        scene.deliver("a", "b", "c", "d", "e")
        assert (list(scene.running), scene.rules.waiting, scene.poll) == (["a", "b"], 3, None)
        scene.finish("a")
        assert list(scene.running) == ["b", "c"]

    def test_only_one_poll_is_under_way_and_the_next_asks_for_the_places_that_are_free_then(self):
        scene = Scene(concurrency=2, prefetch=0)
        scene.deliver("a")
        assert scene.polls == [2, 1]
        scene.finish("a")
        assert scene.polls == [2, 1]
        scene.deliver()
        assert scene.polls == [2, 1, 2]

    def test_few_free_places_wait_for_more_while_there_is_work_in_store(self):
        scene = Scene(concurrency=4, prefetch=8)
        scene.deliver(*"abcdefghijkl")
        scene.finish("a", "b")
        assert scene.polls == [12]
        scene.finish("c")
        assert scene.polls == [12, 3]

    def test_a_tenth_of_a_second_of_work_is_prefetched_by_default(self):
        scene = Scene(concurrency=2, prefetch=None)
        # How long the work takes is not known yet: one in store could wait for hours.
        assert scene.polls == [2]
        policy = scene.rules.policy
        assert [policy.prefetch_for(each) for each in (0.0, 0.0001, 0.002, 0.1, 0.5)] == [0, 500, 100, 2, 0]

    def test_nothing_is_prefetched_by_default_when_handlers_are_slow(self):
        scene = Scene(concurrency=2, prefetch=None)
        scene.deliver(*"ab")
        for name in "ab":
            scene.advance(5)
            scene.finish(name)
        scene.deliver()
        assert scene.polls[-1] == 2

    def test_a_server_that_settles_no_single_item_is_asked_for_one_at_a_time(self):
        scene = Scene()
        scene.rules.allow_polls(PollMode.ONE_ITEM)
        scene.deliver("a")
        assert scene.polls[-1] == 1

    def test_a_large_backlog_of_results_ends_polling(self):
        scene = Scene(concurrency=5_000, prefetch=0)
        names = [str(each) for each in range(5_000)]
        scene.deliver(*names)
        scene.finish(*names)
        assert scene.poll is None
        scene.answer_settles()
        assert scene.poll is not None


class TestVerdicts:
    @pytest.mark.parametrize(
        ("verdict", "action", "delay", "error"),
        [
            (REMOVE, REMOVED, None, ""),
            (verdict_of_error(ValueError("no jpg")), FAILED, None, "ValueError: no jpg"),
            (verdict_of_error(Reject("no jpg")), REJECTED, None, "no jpg"),
            (verdict_of_error(Defer(1.5)), DEFERRED, 1_500, ""),
            (verdict_of_error(Defer(None)), DEFERRED, None, ""),
            (verdict_of_error(Fail(60, "later")), FAILED, 60_000, "later"),
            (None, *UNASKED_CANCEL[:3]),
        ],
    )
    def test_an_item_is_settled_as_its_handler_ended(self, verdict, action, delay, error):
        scene = Scene()
        lease = scene.deliver("a")
        scene.finish("a", verdict=verdict)
        (settle,) = scene.settles.values()
        (entry,) = settle.entries
        assert (entry.lease, entry.id, entry.action, entry.delay) == (lease, b"a", action, delay)
        assert entry.error.splitlines()[:1] == error.splitlines()[:1]

    def test_a_hand_off_goes_in_a_call_of_its_own(self):
        scene = Scene(concurrency=3)
        adds = (AddTo("next", ()),)
        scene.deliver("a", "b", "c")
        scene.finish("a", verdict=Done(adds).verdict)
        scene.finish("b", "c")
        scene.advance(1)
        assert [[len(each.entries), each.adds] for each in scene.settles.values()] == [[1, adds], [2, ()]]

    def test_a_hand_off_does_not_join_the_results_before_it(self):
        scene = Scene(concurrency=4)
        adds = (AddTo("next", ()),)
        scene.deliver("a", "b", "c", "d")
        scene.finish("a")
        scene.finish("b")
        scene.finish("c", verdict=Done(adds).verdict)
        scene.finish("d")
        scene.answer_settles()
        scene.advance(1)
        assert [(len(each.entries), each.adds) for each in scene.settles.values()] == [(1, ()), (1, adds), (1, ())]

    def test_a_hand_off_to_a_full_queue_holds_up_no_other_result(self):
        scene = Scene(concurrency=3)
        scene.deliver("a", "b")
        scene.finish("a", verdict=Done((AddTo("next", ()),)).verdict)
        scene.answer_settles(Overloaded("the queue is full"))
        scene.finish("b")
        assert [[each.id for each in settle.entries] for settle in scene.settles.values()] == [[b"b"]]

    def test_a_hand_off_to_a_queue_that_stays_full_is_deferred(self):
        scene = Scene()
        scene.deliver("a")
        scene.finish("a", verdict=Done((AddTo("next", ()),)).verdict)
        full = Overloaded("the queue is full")
        waits = waits_after(scene, full, len(HAND_OFF_WAITS))
        scene.answer_settles(full)
        assert (tuple(waits), scene.settled()) == (HAND_OFF_WAITS, [("a", HAND_OFF_DEFERRED.action)])
        assert scene.rules.leases == 0

    def test_a_hand_off_after_lost_connections_is_put_off_as_often_as_any_other(self):
        scene = Scene()
        scene.deliver("a")
        scene.finish("a", verdict=Done((AddTo("next", ()),)).verdict)
        waits_after(scene, OutcomeUnknown("the connection was lost"), 3)
        waits = waits_after(scene, Overloaded("the queue is full"), len(HAND_OFF_WAITS))
        assert tuple(waits) == HAND_OFF_WAITS
        assert [each for each in scene.logs if "cannot be handed off yet: the queue is full" in each]

    def test_a_hand_off_that_was_put_off_is_deferred_at_a_stop(self):
        scene = Scene()
        scene.deliver("a")
        scene.finish("a", verdict=Done((AddTo("next", ()),)).verdict)
        scene.answer_settles(Overloaded("the queue is paused"))
        scene.stop()
        assert scene.settled() == [("a", HAND_OFF_DEFERRED.action)]
        assert scene.ended

    def test_results_count_by_their_end(self):
        scene = Scene(concurrency=4)
        scene.deliver(*"abcd")
        for name, verdict in {"a": REMOVE, "b": Fail().verdict, "c": Defer().verdict, "d": Reject().verdict}.items():
            scene.finish(name, verdict=verdict)
        scene.settled()
        counts = scene.rules.counts
        assert (counts.removed, counts.failed, counts.deferred, counts.rejected, counts.lost) == (1, 1, 1, 1, 0)


class TestBatches:
    def test_the_first_result_goes_at_once_and_those_during_the_call_together(self):
        scene = Scene(concurrency=9)
        scene.deliver(*"abcdefghi")
        scene.finish("a")
        scene.finish("b")
        scene.finish("c", "d")
        assert scene.take_settles() == [("a", REMOVED)]
        scene.answer_settles()
        assert scene.take_settles() == [(name, REMOVED) for name in "bcd"]

    def test_a_result_waits_for_others_at_most_ten_milliseconds(self):
        scene = Scene(concurrency=9)
        scene.deliver("a", "b")
        scene.finish("a")
        scene.finish("b")
        assert scene.rules.wake_at(scene.now) == scene.now + 0.01
        scene.now += 0.01
        scene.act()
        assert scene.take_settles() == [("a", REMOVED), ("b", REMOVED)]

    def test_many_results_are_worth_a_call_of_their_own(self):
        scene = Scene(concurrency=500)
        names = [str(each) for each in range(500)]
        scene.deliver(*names)
        scene.finish(names[0])
        scene.finish(*names[1:])
        assert [len(each.entries) for each in scene.settles.values()] == [1, 499]

    def test_a_temporary_error_is_tried_again_after_a_wait_that_grows(self):
        scene = Scene()
        scene.deliver("a")
        scene.finish("a")
        assert waits_after(scene, Overloaded("the disk is full"), 8) == [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 5.0, 5.0]
        assert scene.settled() == [("a", REMOVED)]

    def test_a_call_that_the_server_refuses_is_split_and_then_only_its_cause_fails(self):
        scene = Scene(concurrency=3)
        scene.deliver("a", "b", "c")
        scene.finish("a")
        scene.finish("b", verdict=Defer(1e8).verdict)
        scene.finish("c")
        scene.answer_settles()
        scene.advance(1)
        why = InvalidRequest("delay is 100,000,000,000 ms; the limit is 1,000")
        scene.answer_settles(why)
        scene.advance(1)
        assert [len(each.entries) for each in scene.settles.values()] == [1, 1]
        scene.answer_settles(why)
        (refused,) = [each.entries[0] for each in scene.settles.values() if each.entries[0].id == b"b"]
        assert (refused.action, refused.delay) == (FAILED, None)
        assert "the limit is 1,000" in refused.error
        assert sorted(scene.settled()) == [("b", FAILED), ("c", REMOVED)]

    def test_a_failure_that_the_server_refuses_is_dropped_and_logged(self):
        scene = Scene()
        scene.deliver("a")
        scene.finish("a")
        scene.answer_settles(InvalidRequest("no"))
        scene.answer_settles(InvalidRequest("no"))
        assert (scene.rules.settling, scene.rules.counts.lost) == (0, 1)
        assert "is dropped: no" in scene.logs[-1]

    def test_a_result_after_the_end_of_its_lease_is_logged_and_counted_as_lost(self):
        scene = Scene()
        scene.deliver("a")
        scene.finish("a")
        scene.answer_settles([Settled(Outcome.LEASE_LOST)])
        assert scene.rules.counts.lost == 1
        assert "came after the end of its lease" in scene.logs[-1]


class TestTimedLeases:
    def test_a_lease_is_extended_after_a_third_of_its_span_for_waiting_and_running_items(self):
        scene = Scene(session=False, concurrency=1, prefetch=1)
        first = scene.deliver("a")
        second = scene.deliver("b")
        scene.advance(SPAN / 3 - 1)
        assert not scene.extends
        scene.advance(1)
        assert [(each.lease, each.span) for each in scene.extends] == [(first, 30_000), (second, 30_000)]

    def test_a_lease_is_counted_from_the_sending_of_its_poll(self):
        scene = Scene(session=False)
        scene.deliver("a", sent=scene.now - SPAN / 3)
        scene.advance(TICK_SECONDS)
        assert len(scene.extends) == 1

    def test_an_extension_counts_from_its_sending(self):
        scene = Scene(session=False)
        lease = scene.deliver("a")
        scene.advance(SPAN / 3)
        sent = scene.now
        scene.advance(5)
        scene.rules.extended(lease, True, sent, scene.now)
        scene.advance(SPAN / 3 - 5)
        assert len(scene.extends) == 2
        scene.advance(SPAN * 2 / 3 - 1)
        assert not scene.lost
        scene.advance(1)
        assert scene.lost == ["a"]

    def test_an_id_leaves_upkeep_before_it_is_settled(self):
        scene = Scene(session=False)
        lease = scene.deliver("a", "b")
        scene.finish("a", "b")
        scene.advance(SPAN / 3 + 1)
        assert not scene.extends
        # An extension that was under way finds the lease without items.  That is no loss.
        scene.answer_settles(Overloaded("its reply was lost"))
        scene.rules.extended(lease, False, scene.now, scene.now)
        scene.advance(1)
        assert scene.settled() == [("a", REMOVED), ("b", REMOVED)]
        assert scene.rules.counts.lost == 0

    def test_a_lease_that_the_server_has_ended_is_lost(self):
        scene = Scene(session=False, concurrency=1, prefetch=1)
        lease = scene.deliver("a", "b")
        scene.advance(SPAN / 3)
        scene.rules.extended(lease, False, scene.now, scene.now)
        scene.act()
        assert (scene.lost, scene.rules.waiting) == (["a"], 0)
        assert [each for each in scene.logs if "the server has ended it" in each]
        scene.finish("a")
        assert scene.take_settles() == []

    def test_an_error_is_tried_again_until_the_lease_ends(self):
        scene = Scene(session=False)
        lease = scene.deliver("a")
        scene.advance(SPAN / 3)
        for _ in range(15):
            scene.rules.extended(lease, Overloaded("busy"), scene.now, scene.now)
            scene.advance(1)
        assert len(scene.extends) == 16
        assert not scene.lost
        scene.advance(SPAN)
        assert scene.lost == ["a"]

    def test_a_result_that_waits_beyond_the_end_of_its_lease_is_not_sent(self):
        scene = Scene(session=False)
        scene.deliver("a")
        scene.advance(1)
        scene.finish("a")
        for _ in range(30):
            scene.answer_settles(Overloaded("busy"))
            scene.advance(5)
        assert not scene.settles
        assert (scene.rules.settling, scene.rules.counts.lost) == (0, 1)


class TestSessionLeases:
    def test_a_session_lease_is_not_extended(self):
        scene = Scene()
        scene.deliver("a")
        scene.advance(10 * SPAN)
        assert (scene.extends, scene.lost) == ([], [])

    def test_all_session_leases_are_lost_when_pings_stay_without_answer(self):
        scene = Scene(concurrency=1, prefetch=1)
        scene.deliver("a")
        scene.deliver("b")
        scene.rules.covered(scene.now + 30)
        scene.advance(29)
        assert not scene.lost
        scene.advance(1)
        assert (scene.lost, scene.rules.waiting, scene.rules.leases) == (["a"], 0, 0)

    def test_a_result_that_comes_first_after_a_long_pause_is_not_acknowledged(self):
        """The interpreter lock was held, and the handler's thread runs before the one that ticks."""
        scene = Scene(concurrency=2, prefetch=0)
        scene.deliver("a", "b")
        scene.rules.covered(scene.now + 30)
        scene.now += 31
        scene.finish("a")
        assert (scene.take_settles(), scene.lost) == ([], ["b"])

    def test_a_lease_that_the_server_names_in_a_ping_is_lost(self):
        scene = Scene()
        first = scene.deliver("a")
        scene.deliver("b")
        scene.rules.lease_lost(first)
        scene.act()
        assert scene.lost == ["a"]
        scene.finish("a", "b")
        assert scene.take_settles() == [("b", REMOVED)]

    def test_a_lease_whose_last_result_is_on_its_way_is_nothing_to_lose(self):
        scene = Scene()
        lease = scene.deliver("a")
        scene.finish("a")
        scene.answer_settles(Overloaded("the connection was lost"))
        scene.rules.lease_lost(lease)
        scene.advance(1)
        assert scene.take_settles() == []
        assert scene.rules.counts.lost == 1

    def test_a_lease_that_was_given_up_is_given_back_in_case_the_session_has_it_still(self):
        scene = Scene()
        lease = scene.deliver("a")
        scene.rules.covered(scene.now + 1)
        scene.advance(2)
        assert scene.gave_back == [GiveBack(lease, None, [])]
        scene.rules.covered(scene.now + 30)
        scene.advance(5)
        assert len(scene.gave_back) == 1

    def test_prefetched_items_are_given_back_apart_from_those_that_have_begun(self):
        scene = Scene(concurrency=1, prefetch=2)
        lease = scene.deliver("a", "b", "c")
        scene.rules.covered(scene.now + 1)
        scene.now += 2
        scene.finish("a")
        (gave_back,) = scene.gave_back
        assert (gave_back.lease, sorted(gave_back.waiting)) == (lease, [b"b", b"c"])
        assert scene.rules.counts.lost == 3

    def test_a_lease_whose_last_result_was_not_sent_in_time_is_given_back(self):
        scene = Scene()
        scene.deliver("a")
        scene.finish("a")
        lease = scene.deliver("b")
        scene.finish("b")
        scene.rules.covered(scene.now)
        scene.advance(1)
        assert lease in [each.lease for each in scene.gave_back]

    def test_nothing_is_polled_before_the_session_is_attached(self):
        scene = Scene()
        scene.deliver()
        scene.rules.allow_polls(PollMode.NONE)
        scene.deliver()
        assert scene.poll is None
        scene.rules.allow_polls(PollMode.MANY)
        scene.act()
        assert scene.poll is not None


class TestRuntime:
    def test_a_handler_beyond_max_runtime_is_asked_to_end_and_its_item_fails(self):
        scene = Scene(max_runtime=60)
        scene.deliver("a")
        scene.advance(60)
        assert (scene.cancels, scene.lost) == (["a"], [])
        scene.finish("a", verdict=None)
        ((settle),) = scene.settles.values()
        assert (settle.entries[0].action, settle.entries[0].error) == (
            FAILED,
            "its handler ran for more than 60 s (max_runtime)",
        )
        assert [each for each in scene.logs if "max_runtime" in each]

    def test_a_handler_that_succeeds_after_it_was_asked_to_end_has_done_its_work(self):
        scene = Scene(max_runtime=60)
        scene.deliver("a")
        scene.advance(61)
        scene.finish("a")
        assert scene.settled() == [("a", REMOVED)]

    def test_a_decision_of_a_handler_that_was_asked_to_end_counts(self):
        scene = Scene(max_runtime=60)
        scene.deliver("a")
        scene.advance(61)
        scene.finish("a", verdict=Reject("broken").verdict)
        assert scene.settled() == [("a", REJECTED)]

    def test_a_handler_that_never_returns_loses_its_item_but_keeps_its_place(self):
        scene = Scene(max_runtime=60, concurrency=1, prefetch=1)
        scene.deliver("a", "b")
        scene.advance(60 + ENDING_SECONDS)
        assert (scene.settled(), scene.lost) == ([("a", FAILED)], ["a"])
        assert (scene.rules.running, scene.rules.abandoned, scene.rules.waiting) == (1, 1, 1)
        scene.advance(1_000)
        assert list(scene.running) == ["a"]
        scene.finish("a")
        assert (list(scene.running), scene.take_settles()) == (["b"], [])

    def test_a_handler_that_a_blocked_loop_has_not_begun_is_not_too_slow(self):
        scene = Scene(max_runtime=60, concurrency=2)
        scene.begins = False
        scene.deliver("a", "b")
        scene.advance(100)
        scene.running["a"].begun = scene.now
        scene.advance(60)
        assert scene.cancels == ["a"]

    def test_the_time_in_store_does_not_count(self):
        scene = Scene(max_runtime=60, concurrency=1, prefetch=1)
        scene.deliver("a", "b")
        scene.advance(50)
        scene.finish("a")
        scene.advance(50)
        assert scene.cancels == []


class TestLoop:
    def test_a_loop_is_asked_for_a_sign_only_while_it_has_items(self):
        scene = Scene(stall=60)
        scene.advance(10)
        assert scene.beats == 0
        scene.deliver("a")
        scene.advance(1)
        assert scene.beats == 1
        scene.rules.loop_turned()
        scene.advance(1)
        assert scene.beats == 2

    def test_a_loop_that_stands_gets_no_more_items_and_what_waits_goes_back(self):
        scene = Scene(stall=60, concurrency=1, prefetch=3)
        scene.deliver("a", "b")
        assert scene.poll is not None
        scene.advance(SLOW_SECONDS + 1)
        assert (scene.stalls, scene.poll) == ([SLOW_SECONDS], None)
        assert (scene.settled(), scene.lost) == ([("b", DEFERRED)], [])
        scene.rules.loop_turned()
        scene.act()
        assert scene.poll is not None
        assert "runs again" in scene.logs[-1]

    def test_a_loop_that_stands_for_long_loses_its_items(self):
        scene = Scene(stall=60, concurrency=2)
        scene.deliver("a", "b")
        scene.advance(61)
        (settle,) = scene.settles.values()
        assert {each.action for each in settle.entries} == {FAILED}
        assert "has been blocked for 60 s" in settle.entries[0].error
        assert scene.lost == ["a", "b"]
        scene.rules.loop_turned()
        scene.finish("a", "b")
        assert scene.settled() == [("a", FAILED), ("b", FAILED)]

    def test_a_pause_of_the_whole_process_is_no_fault_of_the_loop(self):
        scene = Scene(stall=60)
        scene.deliver("a")
        scene.advance(1)
        scene.now += 3_600
        scene.rules.tick(scene.now)
        scene.act()
        assert (scene.stalls, scene.lost) == ([], [])


class TestStop:
    def test_a_stop_ends_the_poll_and_gives_back_what_waits_at_once(self):
        scene = Scene(concurrency=1, prefetch=3)
        scene.deliver("a", "b", "c")
        scene.stop()
        assert len(scene.cancelled_polls) == 1
        assert scene.settled() == [("b", DEFERRED), ("c", DEFERRED)]
        assert (scene.ended, scene.polls) == ([], [4, 1])

    def test_items_of_a_poll_that_was_cancelled_with_its_reply_on_its_way_go_back(self):
        scene = Scene()
        scene.deliver("a")
        number = scene.poll.number
        scene.stop()
        scene.deliver("late", number=number)
        assert list(scene.running) == ["a"]
        assert scene.settled() == [("late", DEFERRED)]

    def test_items_of_a_poll_that_a_standing_loop_cancelled_go_back(self):
        scene = Scene(stall=60, concurrency=1, prefetch=1)
        scene.deliver("a")
        number = scene.poll.number
        scene.advance(SLOW_SECONDS + 1)
        scene.deliver("late", number=number)
        assert scene.settled() == [("late", DEFERRED)]

    def test_the_worker_ends_when_its_handlers_have_and_their_results_are_settled(self):
        scene = Scene()
        scene.deliver("a")
        scene.stop()
        scene.advance(1)
        assert scene.ended == []
        scene.finish("a")
        assert scene.ended == []
        assert scene.settled() == [("a", REMOVED)]
        assert scene.ended == [None]

    def test_an_idle_worker_ends_at_once(self):
        scene = Scene()
        scene.stop()
        assert scene.ended == [None]

    def test_after_the_grace_handlers_are_asked_to_end_and_their_items_deferred(self):
        scene = Scene()
        scene.deliver("a", "b")
        scene.stop(10)
        scene.advance(10)
        assert scene.cancels == ["a", "b"]
        scene.finish("a", verdict=None)
        scene.finish("b", verdict=verdict_of_error(OSError("the socket was closed")))
        assert scene.settled() == [("a", DEFERRED), ("b", DEFERRED)]
        assert scene.ended == [None]

    def test_a_handler_that_does_not_end_is_left_and_its_item_deferred(self):
        scene = Scene()
        scene.deliver("a")
        scene.stop(10)
        scene.advance(10 + ENDING_SECONDS)
        assert scene.settled() == [("a", DEFERRED)]
        assert scene.ended == [None]

    def test_a_second_stop_ends_at_once_and_defers_everything(self):
        scene = Scene()
        scene.deliver("a", "b")
        scene.stop()
        scene.stop()
        assert scene.lost == ["a", "b"]
        assert scene.settled() == [("a", DEFERRED), ("b", DEFERRED)]
        assert scene.ended == [None]

    def test_a_second_stop_does_not_wait_long_for_the_server(self):
        scene = Scene()
        scene.deliver("a")
        scene.stop()
        scene.stop()
        scene.advance(FORCED_SECONDS - TICK_SECONDS)
        assert scene.ended == []
        scene.advance(TICK_SECONDS)
        assert scene.ended == [None]
        assert "1 items not settled" in scene.logs[-1]

    def test_a_server_that_does_not_answer_does_not_keep_the_worker(self):
        scene = Scene()
        scene.deliver("a")
        scene.stop(10)
        scene.advance(10 + ENDING_SECONDS + SETTLE_SECONDS)
        assert scene.ended == [None]

    def test_a_worker_that_ends_before_its_handlers_cancels_them(self):
        scene = Scene()
        scene.deliver("a")
        scene.stop(0)
        scene.now += 1_000
        scene.act()
        assert (scene.lost, scene.ended, scene.rules.counts.lost) == (["a"], [None], 1)
        scene.finish("a")
        assert scene.ended == [None]

    def test_without_handlers_the_last_results_are_waited_for_a_few_seconds(self):
        scene = Scene(concurrency=1, prefetch=1)
        scene.deliver("a", "b")
        scene.stop(600)
        scene.advance(60)
        scene.finish("a")
        scene.advance(SETTLE_SECONDS - TICK_SECONDS)
        assert scene.ended == []
        scene.advance(TICK_SECONDS)
        assert scene.ended == [None]

    def test_a_handler_that_was_left_before_keeps_no_worker(self):
        scene = Scene(max_runtime=60)
        scene.deliver("a")
        scene.advance(60 + ENDING_SECONDS)
        scene.settled()
        scene.stop()
        assert scene.ended == [None]


class TestPollErrors:
    def test_a_poll_that_fails_is_repeated_after_a_wait_that_grows_to_ten_seconds(self):
        scene = Scene()
        scene.deliver()
        waits = []
        for _ in range(9):
            number, scene.poll = scene.poll.number, None
            scene.rules.poll_failed(number, Overloaded("no place"), scene.now)
            before = scene.now
            while scene.poll is None:
                scene.now = scene.rules.wake_at(scene.now)
                scene.act()
            waits.append(round(scene.now - before, 1))
        assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
        assert "polling again in 0.1 s: no place" in scene.logs

    @pytest.mark.parametrize(
        "why", [InvalidRequest("lease is 8 d; the limit is 7 d"), Unimplemented("the server does not know pollAny")]
    )
    def test_a_worker_whose_first_poll_is_refused_ends_with_the_error(self, why):
        scene = Scene()
        number, scene.poll = scene.poll.number, None
        scene.rules.poll_failed(number, why, scene.now)
        scene.act()
        assert scene.ended == [why]

    def test_a_poll_that_becomes_wrong_later_is_repeated(self):
        scene = Scene()
        scene.deliver()
        number, scene.poll = scene.poll.number, None
        scene.rules.poll_failed(number, InvalidRequest("damaged rows"), scene.now)
        scene.advance(1)
        assert (scene.ended, scene.poll is None) == ([], False)

    def test_a_worker_that_is_refused_before_it_polls_ends_with_the_error(self):
        scene, why = Scene(), NotConnected("this port speaks HTTP")
        scene.rules.refused(why, scene.now)
        scene.act()
        assert scene.ended == [why]

    def test_a_refusal_after_a_stop_changes_neither_its_grace_nor_its_outcome(self):
        scene = Scene()
        scene.deliver("a")
        scene.stop(10)
        scene.rules.refused(NotConnected("this port speaks HTTP"), scene.now)
        scene.act()
        assert (list(scene.running), scene.settles, scene.ended) == (["a"], {}, [])
        scene.finish("a")
        scene.settled()
        assert scene.ended == [None]

    def test_the_failure_of_a_cancelled_poll_is_nothing(self):
        scene = Scene()
        number = scene.poll.number
        scene.stop()
        scene.rules.poll_failed(number, InvalidRequest("damaged rows"), scene.now)
        scene.act()
        assert scene.ended == [None]


def test_delays_are_rounded_up_to_milliseconds():
    assert Defer(0.0001).verdict.delay == SpanMs(1)
