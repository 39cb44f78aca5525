import pytest

from qss.cli.mount_helper import command


def test_as_mount_8_calls_it():
    assert command(["/etc/qss/a.toml", "/mnt/a", "-o", "rw,noatime,_netdev"]) == [
        "--config", "/etc/qss/a.toml", "mount", "/mnt/a", "-o", "rw,noatime,_netdev",
    ]  # fmt: skip
    assert command(["c", "d", "-s", "-n", "-v", "-t", "qss.x", "-o", "ro", "-o", "uid=1"])[-1] == "ro,uid=1"


def test_a_fake_mount_does_nothing():
    assert command(["c", "d", "-f"]) is None


def test_without_a_directory_it_says_how():
    with pytest.raises(SystemExit):
        command(["c"])
