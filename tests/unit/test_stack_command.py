"""The command that goes on: what was typed, for the servers that failed, without secrets."""

from __future__ import annotations

import shlex
import shutil
import subprocess

import pytest
from ansible.module_utils.stack_command import resume, shown, without_secrets

SERVERS = ["gpu1", "gpu2"]


@pytest.mark.parametrize(
    ("typed", "again"),
    [
        ("site.yml", "site.yml --limit gpu1,gpu2"),
        ("site.yml --limit all", "site.yml --limit gpu1,gpu2"),
        ("site.yml --limit=all", "site.yml --limit gpu1,gpu2"),
        ("--lim all site.yml", "site.yml --limit gpu1,gpu2"),
        ("-l all site.yml", "site.yml --limit gpu1,gpu2"),
        ("-lall site.yml", "site.yml --limit gpu1,gpu2"),
        ("-CDl all site.yml", "-C -D site.yml --limit gpu1,gpu2"),
        ("-vvv -Dtcaffe2 site.yml", "-v -v -v -D -t caffe2 site.yml --limit gpu1,gpu2"),
        ("-i here -i there, site.yml", "-i here -i there, site.yml --limit gpu1,gpu2"),
        ("--inventory here --check site.yml", "--inventory here --check site.yml --limit gpu1,gpu2"),
        ("--inventory=here --tags=a,b site.yml", "--inventory=here --tags=a,b site.yml --limit gpu1,gpu2"),
        ("site.yml --list-hosts", "site.yml --list-hosts --limit gpu1,gpu2"),
        ("-e @vars.yml -e a=1 site.yml", "-e @vars.yml -e a=1 site.yml --limit gpu1,gpu2"),
        ("--extra-vars=a=1 site.yml", "--extra-vars a=1 site.yml --limit gpu1,gpu2"),
        ("-ea=1 -f2 site.yml", "-e a=1 -f 2 site.yml --limit gpu1,gpu2"),
        ("--extra token=x site.yml", "--extra-vars token=HIDDEN site.yml --limit gpu1,gpu2"),
        ("-- site.yml", "site.yml --limit gpu1,gpu2"),
        ("site.yml -l", "site.yml --limit gpu1,gpu2"),
    ],
)
def test_the_command_is_the_one_that_was_typed_with_another_limit(typed: str, again: str) -> None:
    assert " ".join(resume(["/x/ansible-playbook", *shlex.split(typed)], SERVERS)) == f"/x/ansible-playbook {again}"


def test_a_program_on_the_path_is_named_without_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/opt/bin/{name}")
    assert resume(["/opt/bin/ansible-playbook", "site.yml"], SERVERS)[0] == "ansible-playbook"
    assert resume([".venv/bin/ansible-playbook", "site.yml"], SERVERS)[0] == ".venv/bin/ansible-playbook"


@pytest.mark.parametrize(
    ("value", "visible"),
    [
        ("stack_upstream=false", "stack_upstream=false"),
        ("@mirror/sources.yml", "@mirror/sources.yml"),
        ("a=1 my_password=hunter2 b=2", "a=1 my_password=HIDDEN b=2"),
        ("my_password='two words' b=2", "my_password=HIDDEN b=2"),
        ('API_KEY="two \\" words" b=2', "API_KEY=HIDDEN b=2"),
        ("index=http://alice:hunter2@proxy:3128/", "index=http://HIDDEN@proxy:3128/"),
        # What is wrong with it may be its password: stack_proxy refuses this one.
        ("stack_proxy=http://alice:hun/ter2@proxy:3128", "stack_proxy=HIDDEN"),
        ("stack_no_proxy=example.org", "stack_no_proxy=example.org"),
        ("index=https://hunter2@pypi.example.org/simple", "index=https://HIDDEN@pypi.example.org/simple"),
        ("repository=ssh://git@example.org/x.git", "repository=ssh://git@example.org/x.git"),
        ("repository=ssh://git:hunter2@example.org/x.git", "repository=ssh://HIDDEN@example.org/x.git"),
        ('{"a": 1, "deep": [{"auth_token": "hunter2"}]}', '{"a": 1, "deep": [{"auth_token": "HIDDEN"}]}'),
        ('{"secrets": {"one": "hunter2"}}', '{"secrets": {"one": "HIDDEN"}}'),
        ('{"a": [1, 2]}', '{"a": [1, 2]}'),
        ('{"index": "http://alice:hunter2@index"}', '{"index": "http://HIDDEN@index"}'),
        ('{"stack_proxy": "http://alice:hun/ter2@proxy"}', '{"stack_proxy": "HIDDEN"}'),
        ("{password: hunter2}", '{"password": "HIDDEN"}'),
        ('{"password": "hunter2"', "HIDDEN"),
    ],
)
def test_what_looks_like_a_secret_is_hidden_and_nothing_else(value: str, visible: str) -> None:
    assert without_secrets(value) == visible
    assert "hunter2" not in without_secrets(value)


@pytest.mark.parametrize("width", [30, 40, 100])
def test_long_commands_are_broken_between_options_and_a_shell_reads_them_as_one(width: int) -> None:
    command = resume(["ansible-playbook", "-i", "my inventory", "site.yml", "-e", "it's", "-e", ""], SERVERS)
    lines = shown(command, width)
    assert all(len(line) <= width for line in lines)
    assert (len(lines) > 1) == (width < 80)
    program = f"printf '%s\\0' {chr(10).join(lines)}"
    read = subprocess.check_output(["/bin/sh", "-c", program], text=True).split("\0")[:-1]
    typed = ["ansible-playbook", "-i", "my inventory", "site.yml", "-e", "it's", "-e", ""]
    assert read == [*typed, "--limit", "gpu1,gpu2"]
