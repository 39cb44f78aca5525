import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.config import MountSettings, with_options
from qss.config.mount_options import FLAGS, VALUES
from qss.config.schema import MOUNT
from qss.errors import ConfigInvalid
from qss.limits import GIB, MIB


def test_what_fstab_lines_say():
    given_ = "defaults,_netdev,nofail,x-systemd.automount,comment=mine,ro,noatime,nosuid,nodev,noexec,uid=1000,gid=100"
    mount = with_options(MountSettings(), given_ + ",read_ahead=4M,quota_bytes=1G,quota_inodes=10")
    assert (mount.read_only, mount.atime, mount.nosuid, mount.nodev, mount.noexec) == (
        True,
        "noatime",
        True,
        True,
        True,
    )
    assert (mount.uid, mount.gid, mount.read_ahead_bytes) == (1000, 100, 4 * MIB)
    assert (mount.quota_bytes, mount.quota_inodes) == (GIB, 10)
    assert with_options(mount, "passphrase_file=/etc/qss/words").passphrase_file == Path("/etc/qss/words")


def test_the_last_word_holds_and_the_rest_stays():
    before = MountSettings(read_only=True, drain_s=3.0, uid=5)
    assert with_options(before, "") == before
    mount = with_options(before, "ro, rw,")
    assert (mount.read_only, mount.drain_s, mount.uid) == (False, 3.0, 5)
    assert with_options(before, "quota_bytes=none").quota_bytes is None


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("noatim", 'did you mean "noatime"'),
        ("uuid=1", 'did you mean "uid=…"'),
        ("uid", 'did you mean "uid=…"'),
        ("ro=1", "is not known"),
        ("uid=me", "write a whole number"),
        ("quota_bytes=lots", "is not a size"),
        ("passphrase_file=here", "write a path from the root"),
        ("max_read=4096", "read_ahead is what can be set"),
        ("sync", "fsync is real"),
    ],
)
def test_refusals(option, says):
    with pytest.raises(ConfigInvalid, match=says):
        with_options(MountSettings(), option)


@given(st.text(max_size=40))
def test_any_text_is_options_or_refused(text):
    with contextlib.suppress(ConfigInvalid):
        with_options(MountSettings(), text)


def test_every_option_is_one_of_the_configuration():
    targets = {field.target for field in MOUNT.values()}
    assert {name for flag in FLAGS.values() for name in flag} | {MOUNT[name].target for name in VALUES} == targets
