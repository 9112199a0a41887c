"""The learner's own code in the library's place: what is swapped, what is refused, and undoing."""

import inspect
import sys
import types

import pytest
import torch
import toy_library
from toy_exercises import COUNTER, MEAN

import course_utils.exercises.mine as mine_module
from course_utils.base.errors import CourseError
from course_utils.exercises.check import check, verified
from course_utils.exercises.exercise import all_exercises, find_exercise
from course_utils.exercises.index import lesson_files
from course_utils.exercises.mine import use_library, use_mine, use_mine_in_lab, using_mine
from course_utils.exercises.progress import Progress
from course_utils.exercises.stub import instructor_source
from course_utils.models.gpt import attention as attention_module
from course_utils.models.gpt import model as model_module
from course_utils.models.gpt import norm as norm_module
from course_utils.models.gpt.config import GPTConfig
from course_utils.training.parts import optim

CONFIG = GPTConfig(
    vocab=17, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=4, d_ff=12, context=16
)
GOOD_MEAN = "def mean_of_rows(x, scale=1.0):\n    return MARK * x.mean(dim=1) * scale\nMARK = 1.0\n"
GOOD_NORM = """
class RMSNorm(nn.Module):
    def __init__(self, width, eps=1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.rms_norm(x.float(), x.shape[-1:], eps=self.eps).type_as(x) * self.weight
"""
GOOD_BLOCK = """
class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.attention_norm = RMSNorm(config.d_model, config.norm_eps)
        self.attention = GroupedQueryAttention(config)
        self.mlp_norm = RMSNorm(config.d_model, config.norm_eps)
        self.mlp = SwiGLU(config.d_model, config.d_ff)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x, *others):
        x = x + self.dropout(self.attention(self.attention_norm(x), *others))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))
"""


def solve(exercise_id: str, source: str, score: float = 5.0) -> None:
    """As if the learner had run this cell and passed its check."""
    Progress().record(exercise_id, score, 5.0, 0, [], source)


@pytest.fixture(autouse=True)
def the_librarys_afterwards():
    yield
    use_library()
    assert norm_module.RMSNorm.__module__ == model_module.RMSNorm.__module__
    assert inspect.getsourcefile(model_module.RMSNorm) == norm_module.__file__


@pytest.fixture
def toy(monkeypatch):
    found = {MEAN.id: MEAN, COUNTER.id: COUNTER}
    monkeypatch.setattr(mine_module, "find_exercise", found.__getitem__)


def statuses(swaps):
    return {swap.exercise.id: swap.status for swap in swaps}


# --- what is swapped --------------------------------------------------------------------------


def test_a_verified_version_stands_wherever_the_librarys_stood(toy, monkeypatch):
    user = types.ModuleType("course_utils.made_for_this_test")
    user.renamed = toy_library.mean_of_rows
    monkeypatch.setitem(sys.modules, user.__name__, user)
    original = toy_library.mean_of_rows
    solve(MEAN.id, GOOD_MEAN)
    assert statuses(use_mine([MEAN.id])) == {MEAN.id: "yours"}
    assert toy_library.mean_of_rows is user.renamed is not original
    assert "MARK" in toy_library.mean_of_rows.__globals__
    assert MEAN.target is original and "A reason that belongs" in MEAN.source
    use_library([MEAN.id])
    assert toy_library.mean_of_rows is user.renamed is original


def test_the_latest_passing_version_counts_and_later_failures_do_not(toy):
    solve(MEAN.id, GOOD_MEAN)
    solve(MEAN.id, GOOD_MEAN.replace("MARK = 1.0", "MARK = 1"))
    solve(MEAN.id, "def mean_of_rows(x, scale=1.0): return x", score=1.0)
    use_mine([MEAN.id])
    assert type(toy_library.mean_of_rows.__globals__["MARK"]) is int
    solve(MEAN.id, GOOD_MEAN.replace("MARK = 1.0", "MARK = 1.0  # newer"))
    use_mine([MEAN.id])
    assert type(toy_library.mean_of_rows.__globals__["MARK"]) is float
    use_library()
    assert toy_library.mean_of_rows is MEAN.target


def test_a_default_argument_is_swapped_too():
    original = optim.sgd_momentum
    solve("training.sgd_momentum", inspect.getsource(original))
    parameter = torch.nn.Parameter(torch.ones(2))
    with using_mine(["training.sgd_momentum"]):
        assert optim.SGD([parameter], lr=0.1).rule is optim.sgd_momentum is not original
    assert optim.SGD([parameter], lr=0.1).rule is optim.sgd_momentum is original


def test_a_model_built_afterwards_is_built_of_the_learners_parts():
    """Parts that use each other: the learner's block holds the learner's norm, as does the rest."""
    solve("gpt.rms_norm", GOOD_NORM)
    solve("gpt.block", GOOD_BLOCK)
    before = model_module.GPT(CONFIG)
    with using_mine(["gpt.block", "gpt.rms_norm"]) as swaps:
        assert all(swap.yours for swap in swaps)
        model = model_module.GPT(CONFIG)
        norms = [m for m in model.modules() if type(m).__name__ == "RMSNorm"]
        assert len(norms) == 1 + 4 * CONFIG.n_layers
        assert {type(norm) for norm in norms} == {norm_module.RMSNorm}
        assert norm_module.RMSNorm.forward.__code__.co_filename == "<your RMSNorm>"
        assert type(model.blocks[0]).forward.__code__.co_filename == "<your Block>"
        assert attention_module.RMSNorm is model_module.RMSNorm is norm_module.RMSNorm
    model.load_state_dict(before.state_dict())
    tokens = torch.randint(CONFIG.vocab, (2, 9))
    torch.testing.assert_close(model(tokens), before(tokens))
    assert type(model_module.GPT(CONFIG).norm) is type(before.norm)


def test_a_whole_lesson_by_its_number_and_everything_by_default():
    solve("gpt.rms_norm", GOOD_NORM)
    swaps = use_mine(["06"])
    assert statuses(swaps)["gpt.rms_norm"] == "yours"
    assert set(statuses(swaps).values()) == {"yours", "not_solved"}
    use_library(["06"])
    everything = statuses(use_mine())
    assert len(everything) > len(swaps) and everything["gpt.rms_norm"] == "yours"


def test_a_context_takes_back_only_what_it_swapped():
    solve("gpt.rms_norm", GOOD_NORM)
    use_mine(["gpt.rms_norm"])
    with using_mine(["gpt.rms_norm", "gpt.swiglu"]):
        pass
    assert norm_module.RMSNorm.forward.__code__.co_filename == "<your RMSNorm>"


def test_names_that_only_the_lessons_set_up_cells_import_are_there(monkeypatch):
    """norm.py imports neither F nor math; the notebook does."""
    assert not hasattr(norm_module, "F")
    solve("gpt.rms_norm", GOOD_NORM)
    assert statuses(use_mine(["gpt.rms_norm"])) == {"gpt.rms_norm": "yours"}
    assert lesson_files()["06"].exists()


def test_swapping_leaves_random_numbers_alone():
    solve("gpt.initialise", inspect.getsource(find_exercise("gpt.initialise").target))
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    use_mine(["gpt.initialise"])
    assert torch.equal(torch.rand(2), expected)


# --- exercises while their references are displaced --------------------------------------------


def test_checks_and_fallbacks_still_use_the_librarys_own():
    original = norm_module.RMSNorm
    solve("gpt.rms_norm", GOOD_NORM)
    use_mine(["gpt.rms_norm"])
    exercise = find_exercise("gpt.rms_norm")
    assert exercise.target is original and "torch.rsqrt" in exercise.source
    assert check("gpt.rms_norm", original).passed
    assert verified("gpt.rms_norm", lambda width, eps: None) is original


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def mean_of_rows(x, scale=1.0):\n    return (", "SyntaxError in line 2"),
        ("from torch import mean_of_rows", "ImportError"),
        ("def mean_of_rows(x, scale=1.0): return helper(x)", "no longer passes"),
        ("def mean_of_rows(x, scale=1.0): return x.mean(1)", "no longer passes"),
        ("def mean_of_row(x, scale=1.0): return x.mean(1) * scale", "no longer defines"),
        ("raise SystemExit", "SystemExit"),
    ],
)
def test_a_version_that_no_longer_works_is_refused_with_its_reason(toy, source, says):
    solve(MEAN.id, source)
    original = toy_library.mean_of_rows
    (swap,) = use_mine([MEAN.id])
    assert swap.status == "refused" and says in swap.reason
    assert toy_library.mean_of_rows is original


def test_what_is_not_solved_stays_the_librarys(toy, tmp_path, monkeypatch):
    solve(MEAN.id, GOOD_MEAN, score=3.0)
    assert statuses(use_mine([MEAN.id, COUNTER.id])) == dict.fromkeys(
        (MEAN.id, COUNTER.id), "not_solved"
    )
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("COURSE_HOME", str(blocked))  # no record can be opened
    assert statuses(use_mine([MEAN.id])) == {MEAN.id: "not_solved"}


def test_an_exercise_that_does_not_exist_is_an_error():
    with pytest.raises(CourseError, match=r"gpt\.rms_norn"):
        use_mine(["gpt.rms_norn"])


# --- saying so --------------------------------------------------------------------------------


def test_it_says_whose_code_is_in_use(toy, capsys, monkeypatch):
    solve(MEAN.id, GOOD_MEAN)
    solve(COUNTER.id, "class Counter: 1 < 0 and 1 / 0; _ = 1 / 0", 5.0)
    swaps = use_mine_in_lab([MEAN.id, COUNTER.id])
    printed = capsys.readouterr().out
    assert "1 of 2" in printed and "toy.counter: yours no longer runs" in printed
    assert "mean_of_rows  yours" in str(swaps)
    assert "ZeroDivisionError" in swaps._repr_html_() and "<script" not in swaps._repr_html_()
    monkeypatch.setenv("RANK", "1")
    use_mine_in_lab([MEAN.id])
    assert not capsys.readouterr().out


# --- the whole course -------------------------------------------------------------------------


def test_every_exercise_of_the_course_can_be_swapped_and_the_model_stays_right():
    """All solved with the instructor's cells; the GPT made of them equals transformers'."""
    from course_utils.exchange.hf import to_hf

    for _, exercise in all_exercises():
        solve(exercise.id, instructor_source(exercise))
    with using_mine() as swaps:
        assert [swap for swap in swaps if not swap.yours] == []
        model = model_module.GPT(CONFIG).eval()
        ours = {type(m) for m in model.modules() if type(m).__module__.startswith("course_utils")}
        assert all("<your " in made.forward.__code__.co_filename for made in ours) and len(ours) > 4
        tokens = torch.randint(CONFIG.vocab, (2, 9))
        with torch.no_grad():
            torch.testing.assert_close(model(tokens), to_hf(model)(tokens).logits)
    assert model_module.GPT is not type(model)
