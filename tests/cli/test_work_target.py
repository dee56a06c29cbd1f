"""MODULE:OBJECT: what is found, and one sentence for each mistake."""

import sys

import click
import pytest

from queueber.cli.work_processes import SourceFiles
from queueber.cli.work_target import load


@pytest.fixture
def module(tmp_path, monkeypatch, request):
    """Write a module of the test's own name, which no other test has imported, and return a function that loads it."""
    name = f"target_{abs(hash(request.node.nodeid))}"
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(text, spec="app", file=f"{name}.py"):
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return load(f"{name}:{spec}", tmp_path)

    write.name = name
    yield write
    for each in [each for each in sys.modules if each.partition(".")[0] == name]:
        del sys.modules[each]


def mistake(call, *arguments):
    with pytest.raises(click.ClickException) as caught:
        call(*arguments)
    return caught.value.format_message()


def test_an_object_is_found_and_its_parts(module):
    assert module("app = 5") == 5
    assert module("app = 5", "app.real") == 5


def test_modules_in_packages(module, tmp_path):
    name = module.name
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / name / "tasks.py").write_text("app = 7")
    assert load(f"{name}.tasks:app", tmp_path) == 7
    assert mistake(load, f"{name}.task:app", tmp_path) == (
        f"there is no module {name}.task, neither in {tmp_path} nor among the installed ones"
    )


@pytest.mark.parametrize("spec", ["shop", "shop:", ":app", "shop/tasks.py:app", "a b:app", "shop:app()", ""])
def test_something_else_than_module_and_object(spec, tmp_path):
    assert mistake(load, spec, tmp_path).startswith(f"{spec!r} is not MODULE:OBJECT, as in shop.tasks:app")


@pytest.mark.parametrize(
    ("spec", "meant"),
    [
        ("shop", "shop:app"),
        ("shop:", "shop:app"),
        ("./shop.py", "shop:app"),
        ("shop.py:send", "shop:send"),
        ("shop/tasks.py:app", "shop.tasks:app"),
    ],
)
def test_the_path_of_a_file_and_a_module_alone_are_corrected(spec, meant, tmp_path):
    wanted = f"; for the object {meant.partition(':')[2]} it is {meant}."
    assert mistake(load, spec, tmp_path).endswith(f"as in shop.tasks:app{wanted}")


@pytest.mark.parametrize("spec", ["/srv/shop.py", "shop:app()", "a b"])
def test_what_has_no_such_form_gets_no_hint(spec, tmp_path):
    assert mistake(load, spec, tmp_path) == f"{spec!r} is not MODULE:OBJECT, as in shop.tasks:app."


def test_a_module_that_is_not_there_prints_no_traceback(tmp_path, capsys):
    text = mistake(load, "no_such_module_here:app", tmp_path)
    assert text == f"there is no module no_such_module_here, neither in {tmp_path} nor among the installed ones"
    assert capsys.readouterr().err == ""


def test_a_name_that_is_not_there(module):
    assert mistake(module, "x = 1") == f"the module {module.name} has no app"
    assert mistake(module, "x = 1", "x.app") == f"{module.name}:x has no app"


def test_a_name_that_is_not_there_names_what_could_be_meant(module):
    text = "class Worker: pass\nletters, images, other = Worker(), Worker(), 5"
    assert mistake(module, text) == f"the module {module.name} has no app; it has letters, images"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("import no_such_dependency", "ModuleNotFoundError: No module named 'no_such_dependency'"),
        ("def f():\n    return 1 / 0\nf()", "ZeroDivisionError: division by zero"),
        ("raise ValueError('two\\nlines')", "ValueError: two\\nlines"),
        ("raise ValueError", "ValueError"),
    ],
)
def test_an_error_in_the_module_has_its_traceback_from_there_on(module, capsys, text, error):
    assert mistake(module, text) == f"the module {module.name} cannot be imported: {error}"
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last):\n")
    assert shown.splitlines()[1].endswith(f'{module.name}.py", line {len(text.splitlines())}, in <module>')
    assert "importlib" not in shown


def test_a_syntax_error_names_its_line(module, capsys):
    assert "cannot be imported: SyntaxError:" in mistake(module, "def f(:\n")
    assert f'{module.name}.py", line 1' in capsys.readouterr().err


def test_a_script_without_a_guard(module, capsys):
    assert "it ends the program while it is imported" in mistake(module, "import sys\nsys.exit(3)")
    assert "sys.exit(3)" in capsys.readouterr().err


def test_source_files_that_change(tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "tasks.py").write_text("1")
    for folder in (".hidden", "node_modules", "__pycache__", "venv"):
        (tmp_path / folder).mkdir()
    (tmp_path / "venv" / "pyvenv.cfg").write_text("")
    files = SourceFiles(tmp_path)
    assert files.changed() == []
    (tmp_path / "shop" / "tasks.py").write_text("22")
    (tmp_path / "new.py").write_text("1")
    (tmp_path / "notes.txt").write_text("1")
    for folder in (".hidden", "node_modules", "__pycache__", "venv"):
        (tmp_path / folder / "left_out.py").write_text("1")
    assert files.changed() == [tmp_path / "new.py", tmp_path / "shop" / "tasks.py"]
    assert files.changed() == []
    (tmp_path / "new.py").unlink()
    assert files.changed() == [tmp_path / "new.py"]
