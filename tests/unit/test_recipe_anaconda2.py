"""The recipe of the Anaconda2-compatible installer: its parts, and its shell header as /bin/sh runs it."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from recipes.anaconda2.builder import elf
from recipes.anaconda2.builder.__main__ import build, main, plan
from recipes.anaconda2.builder.conda_package import Package, write_package
from recipes.anaconda2.builder.errors import RecipeError
from recipes.anaconda2.builder.inputs import Inputs, Member
from recipes.anaconda2.builder.installer import write_installer
from recipes.anaconda2.builder.python_packages import console_scripts, lay_out_wheel, write_script
from recipes.anaconda2.builder.python_prefix import place, relocate, render_sysconfigdata
from recipes.anaconda2.builder.tree import PLACEHOLDER, set_times, write_member, write_text

RECIPE = Path(__file__).parents[2] / "recipes" / "anaconda2"
PACKAGE = Package("tool", "1.0", "py27_pypi_0", ["python 2.7*"])


# Packages


def lay_out_tool(root: Path) -> None:
    """A package with all that the writer treats differently: module, script, library, link."""
    write_text(root, "lib/python2.7/site-packages/tool.py", "VALUE = 1\n")
    write_script(root, "tool", "tool:main")
    write_member(root, "lib/libtool.so.1", Member("", b"\x7fELF\0" + PLACEHOLDER.encode(), executable=True))
    write_member(root, "lib/libtool.so", Member("", b"", link_target="libtool.so.1"))


def test_same_content_makes_the_same_package(tmp_path: Path) -> None:
    packages = []
    for number, umask in enumerate((0o022, 0o077)):
        root, folder = tmp_path / f"root{number}", tmp_path / f"out{number}"
        previous = os.umask(umask)
        try:
            folder.mkdir()
            lay_out_tool(root)
        finally:
            os.umask(previous)
        os.utime(root / "bin/tool", (number, number))
        packages.append(write_package(PACKAGE, root, folder).read_bytes())
    assert packages[0] == packages[1]


def test_package_tells_conda_its_origin_and_which_texts_hold_the_prefix(tmp_path: Path) -> None:
    lay_out_tool(tmp_path / "root")
    package = write_package(PACKAGE, tmp_path / "root", tmp_path)

    assert package.name == "tool-1.0-py27_pypi_0.tar.bz2"
    with tarfile.open(package) as archive:
        members = {info.name: info for info in archive}
        index, paths = (
            json.load(archive.extractfile(f"info/{name}.json") or pytest.fail()) for name in ("index", "paths")
        )
    assert index["build"] == "py27_pypi_0"
    assert index["depends"] == ["python 2.7*"]
    assert members["bin/tool"].mode == 0o755
    assert members["lib/libtool.so"].linkname == "libtool.so.1"
    # Not the library: conda must not change bytes that happen to look like the placeholder.
    assert [entry["_path"] for entry in paths["paths"] if "prefix_placeholder" in entry] == ["bin/tool"]


def test_module_that_conda_would_rewrite_is_refused(tmp_path: Path) -> None:
    write_text(tmp_path / "root", "lib/python2.7/tool.py", f"PREFIX = '{PLACEHOLDER}'\n")
    with pytest.raises(RecipeError, match=r"tool\.py holds the prefix placeholder"):
        write_package(PACKAGE, tmp_path / "root", tmp_path)


def test_all_files_get_one_time_so_that_byte_code_stays_valid(tmp_path: Path) -> None:
    lay_out_tool(tmp_path)
    set_times(tmp_path)
    times = {path.lstat().st_mtime for path in tmp_path.rglob("*") if not path.is_dir()}
    assert len(times) == 1


def test_archive_member_outside_the_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="outside the package"):
        write_member(tmp_path / "root", "../escaped", Member("", b""))


# Debian's Python


@pytest.mark.parametrize(
    ("frozen", "relocated"),
    [
        ("/usr", "/p"),
        ("/usr/lib", "/p/lib"),
        ("/usr/lib/python2.7/config-x86_64-linux-gnu", "/p/lib/python2.7/config"),
        ("/usr/include/x86_64-linux-gnu", "/p/include"),
        ("-I/usr/include/python2.7 -L/usr/lib/x86_64-linux-gnu", "-I/p/include/python2.7 -L/p/lib"),
        ("'--prefix=/usr' 'CC=x86_64-linux-gnu-gcc'", "'--prefix=/p' 'CC=gcc'"),
        ("x86_64-linux-gnu-g++ -pthread", "g++ -pthread"),
        ("x86_64-linux-gnu-gcc-ranlib", "gcc-ranlib"),
        ("-g -ffile-prefix-map=/build/python2.7-2.7.18=. -Wformat", "-g -Wformat"),
        ("/home/usr/lib ./usr/lib /usrlocal", "/home/usr/lib ./usr/lib /usrlocal"),
        ("x86_64-linux-gnu", "x86_64-linux-gnu"),
    ],
)
def test_build_settings_are_told_in_terms_of_the_prefix(frozen: str, relocated: str) -> None:
    assert relocate(frozen, "/p") == relocated


def test_sysconfigdata_follows_the_running_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = (
        "# generated\nbuild_time_vars = {'LIBDIR': '/usr/lib', 'SO': '.so', 'Py_ENABLE_SHARED': 1, 'HAVE_FORK': 1}\n"
    )
    module: dict[str, dict[str, object]] = {}
    code = render_sysconfigdata((RECIPE / "_sysconfigdata.py.in").read_text(), frozen)

    monkeypatch.setattr("sys.prefix", "/moved/here")
    exec(code, module)  # what `import _sysconfigdata` does

    assert module["build_time_vars"] == {
        "LIBDIR": "/moved/here/lib",
        "SO": ".so",
        "Py_ENABLE_SHARED": 0,
        "HAVE_FORK": 1,
    }


@pytest.mark.parametrize(
    ("debian", "prefix"),
    [
        ("usr/bin/python2.7", "bin/python2.7"),
        ("usr/lib/python2.7/os.py", "lib/python2.7/os.py"),
        ("usr/include/python2.7/Python.h", "include/python2.7/Python.h"),
        ("usr/include/python2.7/pyconfig.h", None),
        ("usr/include/x86_64-linux-gnu/python2.7/pyconfig.h", "include/python2.7/pyconfig.h"),
        ("usr/lib/python2.7/config-x86_64-linux-gnu/Makefile", "lib/python2.7/config/Makefile"),
        ("usr/lib/python2.7/config-x86_64-linux-gnu/libpython2.7.a", None),
        ("usr/lib/python2.7/sitecustomize.py", None),
        ("etc/python2.7/sitecustomize.py", None),
    ],
)
def test_debian_files_find_their_place(debian: str, prefix: str | None) -> None:
    assert place(debian) == prefix


def test_libraries_bring_what_they_need_and_a_missing_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = {"libglib.so.0": ["libpcre.so.3", "libc.so.6"], "libpcre.so.3": ["libc.so.6"]}
    monkeypatch.setattr(elf, "set_search_path", lambda library, path: None)
    monkeypatch.setattr(elf, "needed_by", lambda library: needs[library.name])
    library = Member("", b"\x7fELF")

    added = elf.add_libraries(tmp_path, ["libglib.so.0"], dict.fromkeys(needs, library))
    assert added == ["libglib.so.0", "libpcre.so.3"]
    with pytest.raises(RecipeError, match=r"libpcre\.so\.3 is needed and in no input"):
        elf.add_libraries(tmp_path, ["libglib.so.0"], {"libglib.so.0": library})


# PyPI's packages


def write_wheel(folder: Path, files: dict[str, str]) -> Path:
    wheel = folder / "tool-1.0-py2.py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return wheel


def test_wheel_becomes_modules_and_scripts_that_conda_can_place(tmp_path: Path) -> None:
    entry_points = "[console_scripts]\ntool = tool.cli:main\n\n[other]\nx = y:z\n"
    files = {"tool/__init__.py": "", "tool-1.0.dist-info/entry_points.txt": entry_points}
    lay_out_wheel(write_wheel(tmp_path, files), tmp_path / "root")

    script = tmp_path / "root/bin/tool"
    assert script.read_text().startswith(f"#!{PLACEHOLDER}/bin/python\n")
    assert "from tool.cli import main" in script.read_text()
    assert os.access(script, os.X_OK)
    assert (tmp_path / "root/lib/python2.7/site-packages/tool/__init__.py").is_file()


def test_script_of_a_wheel_starts_the_python_of_the_prefix(tmp_path: Path) -> None:
    lay_out_wheel(write_wheel(tmp_path, {"tool-1.0.data/scripts/tool": "#!python\nimport tool\n"}), tmp_path / "root")
    script = tmp_path / "root/bin/tool"
    assert script.read_text() == f"#!{PLACEHOLDER}/bin/python\nimport tool\n"
    assert os.access(script, os.X_OK)


def test_wheel_with_data_of_another_kind_is_refused(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path, {"tool-1.0.data/data/share/tool": ""})
    with pytest.raises(RecipeError, match="only knows plain wheels"):
        lay_out_wheel(wheel, tmp_path / "root")


def test_scripts_are_named_after_this_python() -> None:
    declared = "[console_scripts]\npip = p:m\npip3 = p:m\npip3.8 = p:m\neasy_install-3.8 = e:m\n"
    assert list(console_scripts(declared)) == ["pip", "pip2", "pip2.7", "easy_install-2.7"]


# Inputs


def input_files(folder: Path, *names: str) -> dict[str, Path]:
    for name in names:
        (folder / name).touch()
    return {name: folder / name for name in names}


def test_inputs_are_found_by_role_whatever_their_order(tmp_path: Path) -> None:
    names = (
        "zlib1g_1.2.11.dfsg-2+deb11u2_amd64.deb",
        "python2.7_2.7.18.orig.tar.gz",
        "ruamel.yaml.clib-0.2.2-cp27-cp27mu-manylinux1_x86_64.whl",
        "pycosat-0.6.3.zip",
        "conda-4.3.16.tar.gz",
    )
    inputs = Inputs(input_files(tmp_path, *names))
    found = [
        inputs.get("deb", "zlib1g"),
        inputs.get("orig", "python2.7"),
        inputs.get("wheel", "ruamel_yaml_clib"),
        inputs.get("sdist", "pycosat"),
        inputs.get("sdist", "conda"),
    ]
    assert [item.path.name for item in found] == list(names)
    assert [item.version for item in found] == ["1.2.11.dfsg-2+deb11u2", "2.7.18", "0.2.2", "0.6.3", "4.3.16"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("notes.txt",), r"notes\.txt is neither"),
        (("pip-20.3.4-py2.py3-none-any.whl", "pip-9.0.1-py2.py3-none-any.whl"), "two inputs are the wheel of pip"),
    ],
)
def test_inputs_without_a_clear_role_are_refused(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Inputs(input_files(tmp_path, *names))


def test_input_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"pycosat-0\.6\.3\.zip is not at"):
        Inputs({"pycosat-0.6.3.zip": tmp_path / "gone"})


def test_missing_input_ends_the_build_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = tmp_path / "inputs.json"
    listed.write_text("{}")
    output = tmp_path / "out" / "Anaconda2-5.2.0-Linux-x86_64.sh"

    assert main(["--inputs", str(listed), "--output", str(output)]) == 1
    assert capsys.readouterr().err == (
        "ERROR: no orig of python2.7 among the inputs: add it to the recipe's inputs in the lock.\n"
    )
    assert list(output.parent.iterdir()) == []


def test_output_must_say_the_version(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="Anaconda2-VERSION-Linux"):
        build(Inputs({}), tmp_path / "anaconda.sh", tmp_path)


def test_every_dependency_in_the_recipe_is_one_of_its_packages(tmp_path: Path) -> None:
    recipe = yaml.safe_load((RECIPE / "recipe.yml").read_text())
    anything = SimpleNamespace(get=lambda kind, name: SimpleNamespace(path=tmp_path, version="1.0"))
    packages = [step.package for step in plan(anything, recipe, tmp_path, tmp_path)]  # type: ignore[arg-type]
    names = {package.name for package in packages}
    assert {depend.partition(" ")[0] for package in packages for depend in package.depends} <= names


# The installer's shell header


@pytest.fixture
def installer(tmp_path: Path) -> Path:
    """The real header before a payload whose one package holds no Python, so that nothing can be installed."""
    lay_out_tool(tmp_path / "root")
    package = write_package(PACKAGE, tmp_path / "root", tmp_path)
    target = tmp_path / "Anaconda2-5.2.0-Linux-x86_64.sh"
    write_installer(target, "5.2.0", RECIPE / "header.sh", RECIPE / "py27/bootstrap.py", [package])
    return target


def test_same_packages_make_the_same_installer(installer: Path, tmp_path: Path) -> None:
    again = tmp_path / "again" / installer.name
    again.parent.mkdir()
    package = write_package(PACKAGE, tmp_path / "root", again.parent)
    os.utime(package, (0, 0))
    write_installer(again, "5.2.0", RECIPE / "header.sh", RECIPE / "py27/bootstrap.py", [package])
    assert again.read_bytes() == installer.read_bytes()


def run_installer(installer: Path, *arguments: str, home: str = "/nonexistent") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(installer), *arguments],
        env={"PATH": "/usr/bin:/bin", "HOME": home},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=installer.parent,
    )


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("/nonexistent/with space", "Cannot install into directories with spaces"),
        ("/nonexistent/a;b", "only letters, digits and"),
        ("/nonexistent/a:b", "only letters, digits and"),
        ("/", "The root folder cannot be"),
        ("/nonexistent/" + "x" * 102, "has 115 characters, scripts in it work up to 114."),
    ],
)
def test_prefix_that_cannot_work_is_refused_with_a_sentence(installer: Path, prefix: str, message: str) -> None:
    result = run_installer(installer, "-b", "-p", prefix)
    assert result.returncode == 1
    assert result.stderr.startswith("ERROR: ")
    assert message in result.stderr


def test_relative_prefix_counts_from_the_current_folder(installer: Path) -> None:
    result = run_installer(installer, "-b", "-p", "x" * 115)
    assert f"'{installer.parent}/" in result.stderr
    assert "The prefix is too long" in result.stderr


def test_existing_prefix_is_refused_and_left_alone(installer: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "mine"
    prefix.mkdir()
    result = run_installer(installer, "-b", "-p", str(prefix))
    assert result.returncode == 1
    assert result.stderr.startswith(f"ERROR: File or directory already exists: '{prefix}'\n")
    assert list(prefix.iterdir()) == []


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_damaged_payload_installs_nothing(installer: Path, tmp_path: Path, damage: str) -> None:
    content = installer.read_bytes()
    installer.write_bytes(content[:-1] if damage == "truncated" else content[:-1] + b"x")
    result = run_installer(installer, "-b", "-p", str(tmp_path / "prefix"))
    assert result.returncode == 1
    assert "md5sum mismatch of the payload" in result.stderr
    assert not (tmp_path / "prefix").exists()


def test_failed_install_leaves_no_prefix(installer: Path, tmp_path: Path) -> None:
    result = run_installer(installer, "-b", "-p", str(tmp_path / "prefix"))
    assert result.returncode == 1
    assert "conda could not link the packages" in result.stderr
    assert not (tmp_path / "prefix").exists()


def test_failed_update_keeps_what_was_there(installer: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "mine"
    write_text(prefix, "bin/python", "mine")
    result = run_installer(installer, "-b", "-u", "-p", str(prefix))
    assert result.returncode == 1
    assert (prefix / "bin/python").read_text() == "mine"
    assert not (prefix / ".install").exists()


def test_help_names_every_option_and_the_origin(installer: Path) -> None:
    result = run_installer(installer, "-h", home="/home/someone")
    assert result.returncode == 0
    assert "built from Debian and PyPI" in result.stdout
    assert "defaults to /home/someone/anaconda2" in result.stdout
    for option in ("-b", "-f", "-h", "-p PREFIX", "-u"):
        assert f"\n{option} " in result.stdout


def test_unknown_option_is_refused(installer: Path) -> None:
    result = run_installer(installer, "-x")
    assert result.returncode == 1
    assert "did not recognize option" in result.stderr


def test_question_without_an_answer_installs_nothing(installer: Path) -> None:
    result = run_installer(installer)
    assert result.returncode == 1
    assert "use -b to install without questions" in result.stderr
