"""
The mutants: each is a bug that a programmer could have written, as a patch, and one test that has to find it.

A test suite that accepts one of them is no evidence.  Each patch is applied to a
copy of the tree, exactly, and its one test is run there: an assertion of that
test must fail, and the test must pass on the copy without the patch.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from attrs import frozen
from counts import Counts, command_line

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDER = HERE / "mutants"
SECONDS = 120
"""The time limit of one test, which has no verdict if it takes longer."""

ASSERTED = r"assert |AssertionError|Failed: |queue_model\.BrokenPromise: "
"""The beginnings of a failed assertion's reason.  The last is that of the model of a queue."""

LYING = "tests/proof/test_lying.py::test_nothing_is_lost_whatever_the_disk_may_do"


@frozen
class Mutant:
    """One mutant."""

    name: str
    what: str
    test: str = LYING

    @property
    def patch(self):
        """Return its file."""
        return FOLDER / f"{self.name}.patch"

    @property
    def number(self):
        """Return its number in the list."""
        return int(self.name[:2])


CRASHES = "tests/proof/test_crashes.py::test_nothing_is_lost_when_the_server_is_killed"
SERVING = "tests/server/test_serving.py::"
MUTANTS = (
    Mutant("01-reply-before-sync", "the reply leaves before the commit"),
    Mutant("02-no-sync", "nothing is synced"),
    Mutant("03-sync-again-after-an-error", "a failed sync is tried again"),
    Mutant(
        "04-directory-sync-error-swallowed",
        "an error of a directory's sync is ignored",
        "tests/proof/test_lying.py::test_whatever_fails_during_a_start_ends_it",
    ),
    Mutant(
        "05-point-in-time-recovery",
        "all rows after the damage of a damaged log are dropped",
        "tests/store/test_rocks.py::TestDamage::test_a_changed_byte_in_the_log_is_detected",
    ),
    Mutant("06-two-writes-per-add", "the rows of one commit are written in two batches"),
    Mutant("07-poll-reply-before-sync", "a poll's reply leaves before its lease is on disk"),
    Mutant(
        "08-reply-without-writes-not-held",
        "a reply without writes does not wait for the commit that it depends on",
        SERVING + "test_a_reply_without_writes_waits_for_the_commits_before_it",
    ),
    Mutant("09-lease-shared", "polls that are served together share a lease"),
    Mutant("10-remove-ignores-the-lease", "remove accepts any lease for an item"),
    Mutant(
        "11-expired-lease-extended",
        "an expired lease that was not swept can be used",
        "tests/broker/test_broker.py::TestRemoveAndExtend::test_after_the_deadline_both_are_false_even_before_the_sweep",
    ),
    Mutant("12-spans-cut-to-seconds", "leases and delays are cut to whole seconds"),
    Mutant("13-leases-by-the-wall-clock", "leases follow the wall clock"),
    Mutant("14-add-wakes-no-poll", "an add does not wake the polls that wait"),
    Mutant("15-lease-row-left", "the row of an ended lease stays"),
    Mutant("16-item-in-two-places", "an item whose lease ended keeps its old row"),
    Mutant(
        "17-sweeper-dies-silently",
        "one exception ends the sweeps silently",
        SERVING + "test_a_bug_in_a_sweep_ends_the_process",
    ),
    Mutant(
        "18-claim-of-a-lost-connection-kept",
        "items claimed for a lost connection stay leased",
        SERVING + "test_a_claim_whose_connection_is_lost_is_given_back",
    ),
    Mutant("19-ids-reused-after-a-restart", "the ids of a process begin like those of the one before"),
    Mutant(
        "20-missing-database-created",
        "a missing database is replaced with an empty one",
        "tests/store/test_directory.py::test_a_missing_database_is_not_replaced",
    ),
    Mutant(
        "21-transient-bytes-not-released",
        "the transient bytes of a connection still count when they are gone",
        "tests/server/test_memory_budget.py::test_complete_messages_do_not_count_once_nothing_transient_is_held",
    ),
    Mutant(
        "22-budget-a-word-short",
        "the traversal budget of a message is one word short",
        "tests/capnp/test_reader.py::test_the_whole_budget_may_be_spent_and_not_a_word_more",
    ),
    Mutant(
        "23-tls-to-the-control-socket",
        "the options for TLS reach the control socket",
        "tests/cli/test_control_commands.py::test_tls_options_do_not_apply_to_the_control_socket",
    ),
    Mutant(
        "24-copy-left-by-restore",
        "a restore whose swap fails leaves its copy",
        "tests/cli/test_maintenance.py::TestRestore::test_a_swap_that_fails_leaves_no_copy_and_everything_as_it_was",
    ),
    Mutant(
        "25-lost-peer-not-read",
        "a peer that disconnects while its reading is paused is never read again",
        "tests/server/test_read_scheduler.py::test_a_stopped_connection_is_still_read_so_that_its_end_is_noticed",
    ),
    Mutant(
        "26-pushed-bytes-not-counted",
        "bytes that the transport takes later do not count as sent",
        "tests/server/test_send_buffer.py::test_everything_arrives_in_order_in_chunks_that_fit",
    ),
    Mutant(
        "27-discarded-buffer-keeps-its-connection",
        "a discarded send buffer keeps its connection",
        "tests/server/test_send_buffer.py::test_after_forget_no_change_is_reported",
    ),
    Mutant(
        "28-measured-at-every-add",
        "once the free space was measured, every add measures it",
        "tests/server/test_reserve.py::test_each_measurement_restarts_the_count_of_bytes",
    ),
    Mutant(
        "29-handshake-too-many",
        "the last place is given to two handshakes",
        "tests/server/test_handshakes.py::test_the_last_place_is_for_one_handshake",
    ),
    Mutant(
        "30-ended-leases-remembered",
        "the sweeper remembers leases that have ended",
        SERVING + "test_unreadable_rows_are_retried_with_growing_delays",
    ),
    Mutant(
        "31-extensions-counted-once",
        "a lease that is extended in each commit counts only in the first",
        "tests/server/test_limits.py::test_a_lease_that_is_extended_in_several_commits_counts_in_each",
    ),
    Mutant(
        "32-old-timer-stays",
        "each poll that waits leaves a timer running",
        SERVING + "test_all_waiting_polls_share_one_timer",
    ),
    Mutant(
        "33-ended-polls-not-sent",
        "a shutdown waits before it answers the polls that it ends",
        "tests/server/test_shutdown.py::test_ended_polls_are_answered_first",
    ),
    Mutant(
        "34-pages-may-be-cached",
        "a cache may keep the pages",
        "tests/server/test_health.py::test_no_page_may_be_cached",
    ),
    Mutant(
        "35-hosts-kept",
        "addresses without connections are remembered",
        "tests/server/test_limits.py::test_no_state_is_kept_for_addresses_without_connections",
    ),
    Mutant(
        "36-sessions-resumed",
        "a client whose name lost its right resumes its TLS session",
        "tests/server/test_handshakes.py::test_a_client_whose_name_is_checked_cannot_resume_a_session",
    ),
    Mutant(
        "37-longest-call-refused",
        "a call of exactly the limit is refused",
        "tests/client/test_queue.py::test_a_call_that_no_server_is_known_to_accept_may_be_as_long_as_the_limit",
    ),
    Mutant(
        "38-load-without-tls",
        "the load tools connect without TLS",
        "tests/cli/test_stress.py::test_a_load_uses_the_address_and_tls_options_and_closes_its_connections",
    ),
    Mutant(
        "39-percentile-rounded-down",
        "a percentile is rounded down to the duration below",
        "tests/cli/test_stress.py::test_percentiles_of_few_durations",
    ),
    Mutant(
        "40-bench-leaves-its-items",
        "a benchmark scenario that only adds leaves its items",
        "tests/cli/test_bench.py::test_each_scenario_empties_its_queue",
    ),
    Mutant(
        "41-timeout-one-check-late",
        "a peer is closed a quarter of a second after its timeout",
        "tests/server/test_limits.py::test_a_timer_expires_at_its_limit_and_not_before",
    ),
    Mutant(
        "42-places-left",
        "the place of an item stays when the item is deleted",
        "tests/store/test_contract.py::test_an_item_that_moves_is_found_at_its_new_place",
    ),
    Mutant(
        "43-conversion-not-synced",
        "batches of a conversion are not synced one by one",
        "tests/store/test_upgrades.py::test_a_conversion_that_is_killed_at_any_write_or_sync_is_begun_again",
    ),
    Mutant(
        "44-keys-read-before-plans",
        "an add with a key does not see the plans since its read",
        "tests/broker/test_dedup.py::test_of_two_adds_at_once_the_second_is_a_duplicate",
    ),
    Mutant(
        "45-renewed-record-deleted",
        "a sweep deletes a record that was renewed meanwhile",
        "tests/broker/test_dedup.py::test_a_record_that_is_renewed_during_a_sweep_is_kept",
    ),
    Mutant(
        "46-settled-item-stays-in-the-lease-row",
        "an item that was settled stays in the row of its lease",
        "tests/broker/test_settle.py::TestCrashes::test_an_item_that_has_left_its_lease_is_not_leased_after_a_crash",
    ),
    Mutant(
        "47-rows-of-a-lease-at-the-place-of-the-first",
        "of several rows of a lease in a commit, the last is written in the place of the first",
        "tests/server/test_settling.py::test_an_extend_before_and_after_a_settle_of_one_commit_both_count",
    ),
    Mutant(
        "48-row-of-an-earlier-lease-used",
        "a settle uses a row that was read for an earlier lease",
        "tests/broker/test_settle.py::TestOutcomes::test_a_row_that_was_read_for_an_earlier_lease_is_not_used",
    ),
    Mutant(
        "49-stale-hand-off-adds",
        "a hand-off with a stale entry adds its items",
        "tests/broker/test_settle.py::TestHandOff::test_with_a_stale_entry_adds_nothing",
    ),
    Mutant(
        "50-hand-off-is-two-plans",
        "a hand-off removes in one plan and adds in another",
        "tests/broker/test_settle.py::TestHandOff::test_is_one_plan",
    ),
    Mutant(
        "51-redrive-trusts-its-slices",
        "a redrive moves an item that was removed while it read",
        "tests/broker/test_dead_letters.py::TestPlansDuringARead::test_an_item_that_is_removed_does_not_come_back",
    ),
    Mutant(
        "52-dead-items-die-again",
        "dead items die again",
        "tests/broker/test_settle.py::TestDeadItems::test_do_not_die_again_and_count_nothing",
    ),
    Mutant(
        "53-replies-of-settles-not-sent",
        "the reply to a settle that waits for no commit is not sent",
        "tests/server/test_settling.py::test_a_lease_that_ends_while_the_rows_are_read_is_lost",
    ),
    Mutant(
        "54-log-of-a-read-begins-late",
        "a lookup, count or peek does not note the plans that are not durable at its request",
        "tests/broker/test_inspection.py::TestLookup::test_plans_count_that_were_not_durable_at_the_request",
    ),
    Mutant(
        "55-cancelled-item-handed-out",
        "a cancelled item stays in its queue's window",
        "tests/server/test_control.py::TestItems::test_a_cancelled_item_is_gone",
    ),
    Mutant(
        "56-count-misses-what-changes",
        "a count misses items that go where it has counted already",
        "tests/broker/test_inspection.py::TestCount::test_items_that_come_and_go_where_it_has_counted",
    ),
    Mutant(
        "57-poll-of-several-stays-in-the-others",
        "a poll of several queues that is claimed in one waits in the others",
        "tests/broker/test_poll_any.py::TestStrict::test_waits_in_all_and_leaves_all_when_it_is_claimed",
    ),
    Mutant(
        "58-lost-session-only-in-memory",
        "the deadlines of a lost worker's leases are not written",
        "tests/broker/test_sessions.py::test_a_lost_session_s_leases_end_after_its_grace_and_their_rows_say_so",
    ),
    Mutant(
        "59-pings-unread-after-a-pause",
        "a pause of the machine ends every session whose pings are not read yet",
        "tests/server/test_sessions.py::test_a_server_that_was_stopped_for_a_minute_ends_no_session_whose_pings_came",
    ),
    Mutant(
        "60-session-bound-at-the-claim",
        "a poll that was claimed for an older connection keeps its items",
        "tests/broker/test_sessions.py::test_a_poll_that_was_claimed_for_an_older_connection_gives_its_items_back",
    ),
    Mutant("61-failure-counted-twice", "a settle that fails an item counts two failures", CRASHES),
    Mutant("62-deferred-item-counts-an-attempt", "an item that was deferred counts an attempt", CRASHES),
    Mutant(
        "63-session-lease-survives-its-grace",
        "the leases of a worker whose connection is lost never end",
        "tests/broker/test_sessions.py::test_a_lost_session_s_leases_end_after_its_grace_and_their_rows_say_so",
    ),
    Mutant(
        "64-swept-before-workers-attach",
        "a start sweeps session leases before a worker can attach",
        "tests/broker/test_sessions.py::"
        "test_a_session_lease_whose_grace_ended_while_the_server_was_down_is_not_swept_before_workers_can_attach",
    ),
    Mutant(
        "65-ended-record-still-counts",
        "a deduplication key counts after its window",
        "tests/broker/test_dedup.py::test_a_second_item_with_a_key_is_not_added_within_the_window",
    ),
    Mutant("66-request-not-recorded", "a call that is sent again adds its items again"),
    Mutant("67-dead-item-not-written", "an item that dies has no row among the dead ones"),
    Mutant(
        "68-purge-deletes-leased-rows",
        "the rows of leased items are deleted after a purge",
        "tests/broker/test_lifecycle.py::TestPurge::test_what_was_leased_comes_back_to_the_queue",
    ),
    Mutant(
        "69-reschedule-is-a-kick",
        "an item that is moved to another moment is ready at once",
        "tests/broker/test_inspection.py::TestItems::test_an_item_that_is_rescheduled_is_not_had_before",
    ),
    Mutant(
        "70-redriven-item-keeps-its-attempts",
        "an item that was moved back from the dead ones dies with its next failure",
        "tests/broker/test_traps.py::test_a_redriven_item_has_its_attempts_again",
    ),
    Mutant(
        "71-age-of-a-leased-item",
        "a queue without polls has the age of an item that is leased",
        "tests/broker/test_first_dues.py::TestLeasedItems::test_are_passed_over_in_further_slices",
    ),
    Mutant(
        "72-age-of-a-removed-item",
        "a queue without polls has the age of an item that was removed while its first key was read",
        "tests/broker/test_first_dues.py::TestChangesDuringARead::"
        "test_a_removed_item_is_not_first_whatever_the_snapshot_has",
    ),
    Mutant(
        "73-add-in-vain",
        "an item is added that expires before it is due",
        "tests/broker/test_limits_of_queues.py::TestExpiry::"
        "test_an_add_of_an_item_that_expires_before_it_is_due_is_refused_as_a_whole",
    ),
    Mutant(
        "74-expired-item-delivered",
        "an item is delivered after its expiry",
        "tests/broker/test_limits_of_queues.py::TestExpiry::test_an_item_that_expired_dies_when_it_would_be_delivered",
    ),
)


def copied(folder):
    """Copy what tests need, without the folder that would hide Twisted."""
    for name in ("queueber", "tests", "schema"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "peers"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def apply(patch, folder, *options):
    """Apply *patch*; return the output of `patch` if it could not."""
    # Forward: what is applied already would otherwise be taken back, and that be called a success.
    command = ["patch", "-p1", "--batch", "--forward", "--fuzz=0", "--no-backup-if-mismatch", *options]
    command += ["-i", str(patch)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stdout + done.stderr


def run(test, folder):
    """Run *test* in *folder*; return its result, such as green or red, and its last words."""
    # Wide, so that the reason of a failure is not cut off.
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "500"}
    seen = subprocess.run(
        [sys.executable, "-c", "import queueber; print(queueber.__file__)"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout.startswith(str(folder)), f"the copy is not what is run, but {seen.stdout}"
    command = [sys.executable, "-m", "pytest", test, "-q", "-x", "--tb=line", "-rfE", "-o", "faulthandler_timeout=60"]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return "endless", f"not over after {SECONDS} s"
    return verdict(test, done.returncode, done.stdout or done.stderr[-300:])


def verdict(test, status, said):
    """Run *test* and return its result: red is a failed assertion of that test, and no crash on the way there."""
    if status == 0:
        return "green", said.strip().splitlines()[-1][:160]
    failed = re.search(rf"^FAILED {re.escape(test)}(\[.*?\])? - (?P<why>.*)", said, flags=re.MULTILINE)
    if status != 1 or failed is None:
        return f"no verdict, status {status}", (said.strip().splitlines() or [""])[-1][:160]
    colour = "red" if re.match(ASSERTED, failed["why"]) else "crashed"
    return colour, failed["why"][:160]


def judge(chosen):
    """Run the tests against each of these mutants; return the counts."""
    counts = Counts("mutants", "mutants", target=len(chosen))
    with tempfile.TemporaryDirectory(prefix="queueber-mutants-") as scratch:
        clean = copied(Path(scratch, "clean"))
        for test in sorted({each.test for each in chosen}):
            colour, why = run(test, clean)
            if colour != "green":
                counts.failures.append(f"{test} is {colour} without a mutant: {why}")
        for each in chosen:
            began = time.monotonic()
            folder = Path(scratch, each.name)
            shutil.copytree(clean, folder)
            problem = apply(each.patch, folder)
            colour, why = ("not applied", problem) if problem else run(each.test, folder)
            print(f"{each.name}: {colour} after {time.monotonic() - began:.0f} s: {why}", flush=True)
            counts.count([] if colour == "red" else [f"{each.name} lives: {colour}: {why}"])
            shutil.rmtree(folder)
    return counts


def main():
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--only", type=int, action="append", help="of this number; repeatable")
    parser.add_argument("--list", action="store_true", help="list the bugs and their tests, and run none")
    parser.add_argument("--seed", type=int, help="there is nothing random in this")
    asked = parser.parse_args()
    if asked.list:
        for each in MUTANTS:
            print(f"{each.number:2} {each.what}: {each.test.rpartition('::')[2]}")
        return 0
    return judge([each for each in MUTANTS if not asked.only or each.number in asked.only]).end(command_line())


if __name__ == "__main__":
    sys.exit(main())
