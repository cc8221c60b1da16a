import numpy as np

from tuner.emulator.engine.answers import FIRST_TOKEN_ID, Answers

PROMPTS = [np.arange(i, i + 20, dtype=np.int32) for i in range(300)]


def test_an_answer_depends_on_the_prompt_alone_and_grows_at_its_end() -> None:
    answers = Answers(1000)
    whole = answers.tokens(PROMPTS[0], 200)
    assert np.array_equal(answers.tokens(PROMPTS[0].astype(np.int64), 50), whole[:50])
    assert not np.array_equal(answers.tokens(PROMPTS[1], 200), whole)
    assert whole.min() >= FIRST_TOKEN_ID
    assert whole.max() < 1000


def test_a_sampled_answer_depends_on_its_seed() -> None:
    answers = Answers(1000)
    one, two = answers.tokens(PROMPTS[0], 50, seed=1), answers.tokens(PROMPTS[0], 50, seed=2)
    assert not np.array_equal(one, two)
    assert np.array_equal(one, answers.tokens(PROMPTS[0], 50, seed=1))


def test_another_precision_changes_a_small_share_from_one_token_on() -> None:
    own, other = Answers(1000), Answers(1000, "fp8")
    changed = 0
    for prompt in PROMPTS:
        unlike = np.nonzero(own.tokens(prompt, 100) != other.tokens(prompt, 100))[0]
        if unlike.size:
            changed += 1
            assert unlike.size > 0.9 * (100 - unlike[0])
    assert 0.03 < changed / len(PROMPTS) < 0.2
