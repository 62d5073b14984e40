"""Cores are counted by affinity and by quota, whatever the version of the cgroups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelpack_server import cores


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)


def system(root: Path, groups: str, **files: str) -> Path:
    """Return a root with these files below /sys/fs/cgroup."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").write_text(groups)
    for name, text in files.items():
        file = root / "sys" / "fs" / "cgroup" / name.replace("__", "/").replace("_DOT_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.mark.usefixtures("many")
class TestQuota:
    @pytest.mark.parametrize(
        ("quota", "wanted"),
        [("max 100000", 16), ("400000 100000", 4), ("150000 100000", 1), ("20000 100000", 1), ("9900000 100000", 16)],
    )
    def test_of_version_2(self, tmp_path: Path, quota: str, wanted: int) -> None:
        assert cores.usable_cores(system(tmp_path, "0::/\n", cpu_DOT_max=quota + "\n")) == wanted

    def test_of_any_group_around(self, tmp_path: Path) -> None:
        root = system(tmp_path, "0::/pod/box\n", pod__cpu_DOT_max="300000 100000", pod__box__cpu_DOT_max="max 100000")
        assert cores.usable_cores(root) == 3

    def test_of_version_2_beside_version_1(self, tmp_path: Path) -> None:
        groups = "2:memory:/x\n0::/box\n"
        assert cores.usable_cores(system(tmp_path, groups, unified__box__cpu_DOT_max="200000 100000")) == 2

    @pytest.mark.parametrize("controllers", ["cpu", "cpu,cpuacct"])
    def test_of_version_1(self, tmp_path: Path, controllers: str) -> None:
        here = f"{controllers}__box__cpu_DOT_cfs_"
        files = {f"{here}quota_us": "250000\n", f"{here}period_us": "50000\n"}
        assert cores.usable_cores(system(tmp_path, f"4:{controllers}:/box\n", **files)) == 5

    def test_of_a_container_that_sees_the_hosts_path(self, tmp_path: Path) -> None:
        files = {"cpu__cpu_DOT_cfs_quota_us": "200000", "cpu__cpu_DOT_cfs_period_us": "100000"}
        assert cores.usable_cores(system(tmp_path, "4:cpu:/docker/0123\n", **files)) == 2

    def test_a_path_that_leads_outside_is_not_followed(self, tmp_path: Path) -> None:
        root = system(tmp_path, "0::/../../x\n", cpu_DOT_max="300000 100000")
        (tmp_path / "sys" / "x").mkdir()
        (tmp_path / "sys" / "x" / "cpu.max").write_text("100000 100000")
        assert cores.usable_cores(root) == 3

    @pytest.mark.parametrize("text", ["", "rubbish", "1 0", "-1 100000", "\u00b2 100000"])
    def test_that_cannot_be_read_is_none(self, tmp_path: Path, text: str) -> None:
        assert cores.usable_cores(system(tmp_path, "0::/\n", cpu_DOT_max=text)) == 16

    def test_where_there_are_no_groups(self, tmp_path: Path) -> None:
        assert cores.usable_cores(tmp_path) == 16


class TestThreads:
    @pytest.fixture(autouse=True)
    def eight(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cores, "usable_cores", lambda: 8)

    def test_the_cores_are_shared_out(self) -> None:
        names = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"}
        assert cores.library_threads(3, {}) == dict.fromkeys(names, "2")
        assert cores.library_threads(1, {}) == dict.fromkeys(names, "8")

    def test_each_worker_has_one(self) -> None:
        assert set(cores.library_threads(20, {}).values()) == {"1"}

    def test_what_the_user_says_stays(self) -> None:
        assert "MKL_NUM_THREADS" not in cores.library_threads(2, {"MKL_NUM_THREADS": "7"})

    def test_what_the_user_says_for_all_is_for_all(self) -> None:
        assert cores.library_threads(2, {"OMP_NUM_THREADS": "7"}) == {}
