import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from qss.app.priority import freeze_what_stays, step_back
from qss.app.running import is_alive, is_locked, pid_file, pid_in, state_lock, write_whole
from qss.app.supervise import PAUSE_FIRST_S, PAUSE_MAX_S, STEADY_S, Supervisor, next_pause
from qss.errors import Refused
from tests.harness.demo import wait_until
from tests.harness.waiting import until

SYS_EXIT = 60 if os.uname().machine == "x86_64" else 93
"""Of one thread; syscalls(2) does not number it alike everywhere."""


def test_one_process_holds_a_state_directory(tmp_path):
    state = tmp_path / "state"
    assert not is_locked(state)
    with state_lock(state):
        assert is_locked(state)
        with pytest.raises(Refused, match="in use"), state_lock(state):
            pass
    assert not is_locked(state)


def test_the_kernel_lets_go_of_a_killed_process_s_lock(tmp_path):
    code = (
        "import pathlib, sys, qss.app.running as running\n"
        "with running.state_lock(pathlib.Path(sys.argv[1])): print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"held\n"
        assert is_locked(tmp_path)
        child.kill()
        child.wait()
    assert not is_locked(tmp_path)


def test_pid_files(tmp_path):
    path = tmp_path / "run" / "a.pid"
    with pid_file(path):
        assert pid_in(path) == os.getpid()
        assert is_alive(os.getpid())
    assert pid_in(path) is None
    with pid_file(path):
        write_whole(path, "1\n")
    assert pid_in(path) == 1, "another process's file is left alone"


def test_a_dead_process_is_not_alive():
    child = subprocess.Popen([sys.executable, "-c", ""])
    pid = child.pid
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(pid), "a zombie"
    child.wait()
    assert not is_alive(pid)


def test_a_process_is_alive_until_its_last_thread_has_ended():
    code = (
        "import ctypes, sys, threading\n"
        "threading.Thread(target=sys.stdin.read).start()\n"
        f"ctypes.CDLL(None).syscall(ctypes.c_long({SYS_EXIT}), 0)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as child:
        stat = Path(f"/proc/{child.pid}/stat")
        wait_until("its first thread is a zombie", lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z")
        assert is_alive(child.pid), "it has a file open"
        child.stdin.close()
        wait_until("it has ended", lambda: not is_alive(child.pid))


def test_pauses_grow_and_are_bounded():
    pause, seen = PAUSE_FIRST_S, []
    for _ in range(20):
        seen.append(pause)
        pause = next_pause(pause, 0.0)
    assert seen == sorted(seen)
    assert seen[-1] == PAUSE_MAX_S
    assert next_pause(PAUSE_MAX_S, STEADY_S) == PAUSE_FIRST_S


async def test_a_child_that_dies_is_started_again_and_stops_when_told(tmp_path, nursery):
    trace = tmp_path / "trace"
    os.mkfifo(trace)
    code = f"import sys; open({str(trace)!r}, 'w').write('x'); sys.stdin.read()"
    supervisor = Supervisor("child", [sys.executable, "-c", code], tmp_path / "child.pid")
    ended = trio.Event()

    async def run():
        await supervisor.run()
        ended.set()

    nursery.start_soon(run)
    with trio.fail_after(20):
        assert await trio.to_thread.run_sync(trace.read_text) == "x"
        await until(lambda: pid_in(tmp_path / "child.pid"))  # it may have spoken before its start is noted
        first = supervisor.pid
        assert pid_in(tmp_path / "child.pid") == first
        os.kill(first, 9)
        assert await trio.to_thread.run_sync(trace.read_text) == "x"
        await until(lambda: pid_in(tmp_path / "child.pid") not in (first, None))
        assert pid_in(tmp_path / "child.pid") == supervisor.pid
        assert supervisor.starts == 2
        second = supervisor.pid
        await supervisor.stop()
        await ended.wait()
    assert not is_alive(second)
    assert not (tmp_path / "child.pid").exists()


async def test_every_child_is_told_the_first_words_and_its_standard_input_stays_open(tmp_path, nursery):
    trace = tmp_path / "trace"
    os.mkfifo(trace)
    code = (
        f"import os, sys; words = os.read(0, 5); open({str(trace)!r}, 'wb').write(words); sys.exit(len(os.read(0, 1)))"
    )
    supervisor = Supervisor("child", [sys.executable, "-c", code], tmp_path / "child.pid", first_words=b"words")
    nursery.start_soon(supervisor.run)
    with trio.fail_after(20):
        assert await trio.to_thread.run_sync(trace.read_bytes) == b"words"
        await until(lambda: supervisor.pid)
        first = supervisor.pid
        os.kill(first, 9)
        assert await trio.to_thread.run_sync(trace.read_bytes) == b"words", "the next one as well"
        await until(lambda: supervisor.pid not in (first, None))
        assert is_alive(supervisor.pid)
        await supervisor.stop()


async def test_a_child_that_is_gone_before_it_was_told_is_started_again(tmp_path, nursery):
    supervisor = Supervisor("child", [sys.executable, "-c", ""], tmp_path / "child.pid", first_words=b"w" * 4096)
    nursery.start_soon(supervisor.run)
    with trio.fail_after(20):
        while supervisor.starts < 2:  # noqa: ASYNC110 - there is no event for a start
            await trio.sleep(0.01)
    await supervisor.stop()


async def test_it_is_said_why_a_child_does_not_last(tmp_path, nursery):
    words = tmp_path / "child.trouble"
    code = f"import pathlib, sys; pathlib.Path({str(words)!r}).write_text('the key is gone\\n'); sys.exit(3)"
    supervisor = Supervisor("child", [sys.executable, "-c", code], tmp_path / "child.pid")
    assert supervisor.trouble == ""
    nursery.start_soon(supervisor.run)
    with trio.fail_after(20):
        while not supervisor.trouble:  # noqa: ASYNC110 - there is no event for an end
            await trio.sleep(0.01)
        assert "the child process ended with status 3" in supervisor.trouble
        assert supervisor.trouble.endswith(": the key is gone")
        while "times in a row" not in supervisor.trouble:  # noqa: ASYNC110
            await trio.sleep(0.01)
        await supervisor.stop()
    words.unlink()
    assert "its log says why" in supervisor.trouble


async def test_a_child_can_run_at_a_lower_priority_in_a_session_of_its_own(tmp_path, nursery):
    trace = tmp_path / "trace"
    os.mkfifo(trace)
    code = f"import sys; open({str(trace)!r}, 'w').write('x'); sys.stdin.read()"
    supervisor = Supervisor("child", [sys.executable, "-c", code], tmp_path / "child.pid", nice=7)
    nursery.start_soon(supervisor.run)
    with trio.fail_after(20):
        assert await trio.to_thread.run_sync(trace.read_text) == "x"
        await until(lambda: pid_in(tmp_path / "child.pid"))
        pid = supervisor.pid
        assert os.getpriority(os.PRIO_PROCESS, pid) == min(os.getpriority(os.PRIO_PROCESS, 0) + 7, 19)
        assert os.getsid(pid) == pid
        await supervisor.stop()


def test_a_process_that_is_gone_cannot_step_back_and_nobody_minds():
    step_back(2**22 + 1, 5)  # above the highest process id there can be


def test_the_start_is_not_looked_at_by_the_garbage_collector_again():
    try:
        freeze_what_stays()
        assert gc.get_freeze_count()
        assert gc.isenabled()  # for what comes later
    finally:
        gc.unfreeze()


def test_what_answers_programs_comes_before_them_where_it_may_and_what_it_starts_does_not():
    code = """
import os, subprocess, sys, threading
from qss.app.priority import LIFT, answer_soon, step_back
before = os.getpriority(os.PRIO_PROCESS, 0)
answer_soon()
now = os.getpriority(os.PRIO_PROCESS, 0)
assert now in (LIFT, before), now
seen = []
thread = threading.Thread(target=lambda: seen.append(os.getpriority(os.PRIO_PROCESS, 0)))
thread.start(); thread.join()
child = subprocess.run([sys.executable, "-c", "import os; print(os.nice(0))"], capture_output=True, text=True)
lower = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
step_back(lower.pid, 5)
stepped = os.getpriority(os.PRIO_PROCESS, lower.pid)
lower.communicate()
print(before, now, seen[0], child.stdout.strip(), stepped, os.sched_getscheduler(0))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, now, thread, child, stepped, policy = map(int, done.stdout.split())
    assert thread == child == max(before, 0)
    assert stepped == min(child + 5, 19)  # below programs, not below the thread that was lifted above them
    assert policy & ~os.SCHED_RESET_ON_FORK == os.sched_getscheduler(0)
    if os.geteuid() == 0 and now != before:
        assert now < 0
