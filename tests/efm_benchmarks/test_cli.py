import functools
import json
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from efm_agents.checkpoint import load_checkpoint, save_checkpoint
from efm_benchmarks.policies import make_policy
from efm_envs.data import load_episodes
from efm_envs.rewards import make_reward_model
from efm_envs.rollout import rollout
from efm_envs.seeding import EpisodeSet, episode_seeds
from tests.efm_benchmarks.conftest import EFM, TINY_IMPROVE, TINY_SFT, Efm, Finished, Runs, run_apart

POINT_MASS = "EFM-PointMass-v0"
COMMANDS = ("envs", "doctor", "demos", "sft", "improve", "eval", "relabel", "audit", "serve-reward", "recipe", "play")


def assert_one_line_of_error(done: Finished, *parts: str) -> None:
    """A mistake ends with one line on stderr (progress bars may stand before it), and nothing on stdout."""
    assert done.code not in (0, None) and done.out == "" and "Traceback" not in done.err, done
    last = done.err.strip().splitlines()[-1]
    assert last.startswith("error: "), done.err
    assert all(part in last for part in parts), last


# -- help -------------------------------------------------------------------------------------------------------------------------


def test_help_lists_every_command(efm: Efm) -> None:
    done = efm("--help")
    assert done.code == 0 and all(f"• {command} " in done.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, efm: Efm) -> None:
    done = efm(command, "--help")
    assert done.code == 0 and done.out.startswith(f"usage: efm {command}") and done.err == ""


@pytest.mark.parametrize("command", [(), *((command,) for command in COMMANDS)])
def test_help_loads_nothing_heavy(command: tuple[str, ...]) -> None:
    program = (
        "import sys, atexit\n"
        "atexit.register(lambda: print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr))\n"
        "from efm_benchmarks import cli\n"
        "cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", program, *command, "--help"], capture_output=True, text=True, check=True)
    assert {"torch", "mujoco", "scipy", "matplotlib", "imageio", "rich"} & set(done.stderr.split()) == set()
    assert "efm_benchmarks" in done.stderr.split()


def test_help_answers_at_once() -> None:
    def cpu_s() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run_apart("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(cpu_s() for _ in range(3)) < 1.5  # half a second is the aim; a loaded machine has slower seconds


# -- a run's env ------------------------------------------------------------------------------------------------------------------


def test_a_run_goes_on_in_the_env_that_its_demonstrations_were_made_in(efm: Efm, tmp_path: Path) -> None:
    table, demos, sft, better = "EFM-LanguageTable4-v0", tmp_path / "demos.npz", tmp_path / "sft", tmp_path / "improve"
    efm("demos", "--env", table, "--episodes", 8, "--options", '{"goal_vector": true}', "--workers", 1, "--out", demos)
    efm("sft", "--demos", demos, "--out", sft, *TINY_SFT)
    assert efm("improve", "--start", sft, "--out", better, *TINY_IMPROVE, "--iterations", "1").code == 0
    for run in (sft, better):
        found = parsed(efm("eval", "--policy", run, "--episodes", 2, "--json"))
        assert found["env"] == table


# -- reward models ----------------------------------------------------------------------------------------------------------------

SMALL_AUDIT = ("--episodes", "4", "--states", "1", "--rollouts", "2")


def test_an_audit_writes_a_card_and_a_page_and_recommends_a_threshold(efm: Efm, tmp_path: Path) -> None:
    done = efm("audit", "--reward", "oracle", *SMALL_AUDIT, "--out", tmp_path)
    card = json.loads((tmp_path / "card.json").read_text())
    assert done.code == 0 and card["recommended"]["cost"]["f1"] == 1.0 and card["command"].startswith("efm audit --reward oracle")
    page = (tmp_path / "card.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert str(tmp_path / "card.html") in done.out


def test_an_audit_of_a_run_takes_its_env_and_leaves_it_the_recommended_threshold(
    runs: Runs, efm: Efm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("efm_benchmarks.audit.card.LEAST_F1", 0.0)  # this run has learned next to nothing
    run, spec = tmp_path / "sft", {"id": "checkpoint", "path": str(tmp_path / "sft")}
    shutil.copytree(runs.sft, run)
    before = make_reward_model(spec).success_threshold
    efm("audit", "--reward", run, *SMALL_AUDIT, "--out", tmp_path / "audit", "--no-adopt")
    assert make_reward_model(spec).success_threshold == before
    for _ in range(2):  # a second audit compares with the threshold before the first
        card = parsed(efm("audit", "--reward", run, *SMALL_AUDIT, "--out", tmp_path / "audit", "--json"))
        assert card["env"] == POINT_MASS and card["adopted"]
        assert card["figures"]["success"]["own"]["success_threshold"] == pytest.approx(before, rel=1e-6)
        assert make_reward_model(spec).success_threshold == card["recommended"]["success_threshold"]


def test_a_threshold_that_tells_little_is_not_taken_over(runs: Runs, efm: Efm, tmp_path: Path) -> None:
    run = tmp_path / "sft"
    shutil.copytree(runs.sft, run)
    done = efm("audit", "--reward", run, *SMALL_AUDIT, "--out", tmp_path / "audit")
    assert "not taken over" in done.out and not list(run.rglob("*.card.json"))


def test_stored_episodes_are_judged_by_any_model(runs: Runs, efm: Efm, tmp_path: Path) -> None:
    found = parsed(
        efm("relabel", "--episodes", runs.demos, "--reward", '{"id": "constant", "value": 0}', "--out", tmp_path / "e.npz", "--json")
    )
    episodes, meta = load_episodes(tmp_path / "e.npz")
    assert found["episodes"] == len(episodes) == 30 and found["predicted_success"] == 1.0
    assert all(episode.predicted_success.all() for episode in episodes) and meta["reward"]["spec"] == {"id": "constant", "value": 0.0}


def test_a_reward_model_that_cannot_be_is_one_line_of_error(efm: Efm, tmp_path: Path) -> None:
    assert_one_line_of_error(efm("audit", "--reward", "orakel", "--out", tmp_path), "Did you mean 'oracle'?")
    assert_one_line_of_error(efm("audit", "--reward", "{id", "--out", tmp_path), "a reward model's JSON is an object")
    assert_one_line_of_error(efm("audit", "--reward", "oracle", "--episodes", "1", "--out", tmp_path), "at least 4; got 1")
    assert_one_line_of_error(efm("audit", "--reward", "runs/none", "--out", tmp_path), "no run's folder or checkpoint at runs/none")
    assert_one_line_of_error(efm("audit", "--reward", "slow", "--out", tmp_path), "simulated time does not wait")


def test_a_served_model_answers_until_ctrl_c(tmp_path: Path) -> None:
    command = [str(EFM), "serve-reward", "--reward", '{"id": "constant", "value": 4}', "--port", "0"]
    hears = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what a shell has in the background ignores Ctrl-C
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hears)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().split(" at ")[1].split(". ")[0]
        assert url in server.stdout.readline()
        env = gym.make(POINT_MASS, reward_model={"id": "http", "url": url})
        assert env.reset(seed=0)[1]["steps_to_go"] == 4.0
    finally:
        server.send_signal(signal.SIGINT)
        _, err = server.communicate(timeout=20)
    assert "Traceback" not in err and "POST /v1/steps-to-go" in err and err.strip().endswith("Stopped.")


# -- JSON -------------------------------------------------------------------------------------------------------------------------


def parsed(done: Finished) -> Any:
    """stdout is JSON and nothing else."""
    assert done.code == 0, done

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(done.out, parse_constant=refuse)


def test_envs_are_listed_as_json(efm: Efm) -> None:
    import efm_envs

    assert [row["id"] for row in parsed(efm("envs", "--json"))] == efm_envs.ids()


def test_an_env_is_described_as_json(env_id: str, efm: Efm) -> None:
    facts = parsed(efm("envs", env_id, "--json"))
    assert facts["id"] == env_id and facts["step_limit"] > 0
    assert {"checkpoint", "oracle", "sparse", "none"} <= set(facts["reward_models"])


def test_an_env_with_experts_has_a_clean_one_and_a_human_one(solved_id: str, efm: Efm) -> None:
    assert {"clean", "human"} <= set(parsed(efm("envs", solved_id, "--json"))["expert_styles"])


def test_an_env_whose_extra_is_missing_is_listed_and_says_what_to_install(efm: Efm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dm_control", None)
    listed = [line for line in efm("envs").out.splitlines() if line.startswith("EFM-DMC-BallInCupCatch-v0")]
    assert len(listed) == 1 and listed[0].endswith("needs [dm-control]")
    for command in (("envs", "EFM-DMC-BallInCupCatch-v0"), ("eval", "--env", "EFM-DMC-BallInCupCatch-v0", "--policy", "random")):
        assert_one_line_of_error(efm(*command), 'pip install "efm-envs[dm-control]"')


def test_an_env_without_experts_is_played_at_random(efm: Efm) -> None:
    printed = efm("envs", "EFM-DMC-BallInCupCatch-v0").out
    assert "expert styles: none" in printed and "efm play --env EFM-DMC-BallInCupCatch-v0 --policy random" in printed


def test_text_says_what_json_says(env_id: str, efm: Efm) -> None:
    assert all(word in efm("envs", env_id).out for word in (env_id, "step limit: ", "checkpoint", f"efm play --env {env_id}"))
    assert env_id in efm("envs").out


def test_doctor_reports_as_json_and_its_advice_is_there_when_nothing_draws(efm: Efm) -> None:
    facts = parsed(efm("doctor", "--json"))
    assert {"python", "mujoco", "torch", "gymnasium", "platform"} <= facts["versions"].keys()
    assert isinstance(facts["display"], bool) and set(facts["rendering"]) <= {"egl", "osmesa", "glfw", "default"}
    assert ("works" in facts["rendering"].values()) or any("apt-get install" in advice for advice in facts["advice"])


def test_each_stage_reports_as_json(runs: Runs) -> None:
    demos, sft, improve = (parsed(runs.printed[name]) for name in ("demos", "sft", "improve"))
    episodes, _ = load_episodes(runs.demos)
    assert demos == {
        "file": str(runs.demos),
        "demonstrations": 30,
        "mean_steps": pytest.approx(sum(len(e) for e in episodes) / 30),
    }
    facts = load_checkpoint(runs.sft / "checkpoints/steps_to_go.safetensors", "steps_to_go")[1]
    assert sft == {"run": str(runs.sft), "best_step": facts["best"]["step"], "success_threshold": facts["success_threshold"]}
    assert improve["run"] == str(runs.improve) and improve["iterations"] == 2 and improve["stopped"] == "finished"


def test_the_number_of_workers_does_not_change_the_file(efm: Efm, tmp_path: Path) -> None:
    command = ("demos", "--env", "EFM-LanguageTablePoint-v0", "--episodes", 20, "--knobs", '{"detours": 4}')
    for workers in (1, 2):
        parsed(efm(*command, "--workers", workers, "--out", tmp_path / str(workers), "--json"))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert load_episodes(tmp_path / "1")[1] == {"style": "human", "knobs": {"detours": 4}, "seed": 0, "min_length": 1, "options": {}}


def test_an_envs_knobs_are_shown_as_demos_takes_them(efm: Efm) -> None:
    lines = [line for line in efm("envs", "EFM-LanguageTablePoint-v0").out.splitlines() if line.startswith("  human: ")]
    knobs = json.loads(lines[0].removeprefix("  human: "))
    assert knobs == parsed(efm("envs", "EFM-LanguageTablePoint-v0", "--json"))["expert_knobs"]["human"] and knobs["detours"] == 2
    assert "expert knobs: none" in efm("envs", POINT_MASS).out


def test_an_evaluation_reports_as_json_what_its_rows_say(runs: Runs, tmp_path: Path, efm: Efm) -> None:
    report = parsed(efm("eval", "--policy", runs.improve, "--episodes", 7, "--out", tmp_path / "new" / "rows.jsonl", "--json"))
    rows = [json.loads(line) for line in (tmp_path / "new" / "rows.jsonl").read_text().splitlines()]
    assert report["episodes"] == len(rows) == 7 and len({row["seed"] for row in rows}) == 7
    assert report["success"]["mean"] == pytest.approx(sum(row["success_once"] for row in rows) / 7)
    assert report["steps"] == pytest.approx(sum(row["steps"] for row in rows) / 7)


def test_the_straight_controller_takes_about_12_7_steps(efm: Efm) -> None:
    report = parsed(efm("eval", "--policy", "expert:direct", "--episodes", 100, "--json"))
    assert report["success"]["mean"] == 1.0 and 12.0 < report["steps_to_success"] < 13.4


def test_evaluations_of_one_seed_are_the_same_and_of_another_not(runs: Runs, efm: Efm, tmp_path: Path) -> None:
    rows = []
    for k, more in enumerate(((), (), ("--seed", 1), ("--policy-seed", 1), ("--greedy",))):
        assert efm("eval", "--policy", runs.sft, "--episodes", 3, "--out", tmp_path / str(k), *more).code == 0
        rows.append((tmp_path / str(k)).read_text())
    first, again, *others = rows
    assert first == again and len({first, *others}) == 4


def test_every_stage_says_what_to_do_next(runs: Runs, efm: Efm) -> None:
    assert efm("eval", "--policy", "random", "--episodes", 1).out.splitlines()[-1] == f"Next: efm play --policy random --env {POINT_MASS}"
    again = efm("sft", "--demos", runs.demos, "--out", runs.sft, *TINY_SFT)
    assert again.out.splitlines()[-1] == f"Next: efm improve --start {runs.sft} --out {runs.sft.parent / 'improve'}"


# -- errors -----------------------------------------------------------------------------------------------------------------------


def test_an_unknown_id_is_an_error_that_lists_the_valid_ones(efm: Efm, tmp_path: Path) -> None:
    for command in (
        ("envs", "EFM-PointMass-v9"),
        ("demos", "--env", "EFM-PointMass-v9", "--out", tmp_path / "d.npz"),
        ("eval", "--env", "EFM-PointMass-v9", "--policy", "random"),
        ("play", "--env", "EFM-PointMass-v9", "--video", tmp_path / "v.mp4"),
    ):
        assert_one_line_of_error(efm(*command), "unknown env id: 'EFM-PointMass-v9'", "Valid: 'EFM-", f", '{POINT_MASS}'")


def test_an_unknown_policy_is_an_error_that_lists_the_valid_ones(efm: Efm) -> None:
    done = efm("eval", "--policy", "runs/nowhere")
    assert_one_line_of_error(done, "no policy 'runs/nowhere'", "expert:clean", "expert:human", "random")


def test_an_unknown_style_is_an_error_that_lists_the_valid_ones(efm: Efm, tmp_path: Path) -> None:
    assert_one_line_of_error(efm("eval", "--policy", "expert:huamn"), "'huamn'", "'human'")
    assert_one_line_of_error(efm("demos", "--style", "huamn", "--out", tmp_path / "d.npz"), "'huamn'", "'human'")


def test_knobs_that_cannot_be_are_an_error_that_says_what_can(efm: Efm, tmp_path: Path) -> None:
    command = ("demos", "--env", "EFM-LanguageTablePoint-v0", "--episodes", 1, "--out", tmp_path / "d.npz", "--knobs")
    assert_one_line_of_error(efm(*command, '{"detour": 4}'), "'detour'. Did you mean 'detours'?", "'noise'")
    assert_one_line_of_error(efm(*command, '{"detours": "four"}'), "detours", "its default, 2", "got 'four'")
    for text in ("detours=4", "[4]"):
        assert_one_line_of_error(efm(*command, text), """--knobs is a JSON object, for example '{"name": 1}'; got""", text)
    assert not (tmp_path / "d.npz").exists()


def test_missing_demonstrations_are_an_error_that_says_how_to_get_some(efm: Efm, tmp_path: Path) -> None:
    file = tmp_path / "absent.npz"
    assert_one_line_of_error(efm("sft", "--demos", file, "--out", tmp_path / "sft"), f"no episodes at {file}", f"efm demos --out {file}")


def test_truncated_demonstrations_are_an_error(efm: Efm, runs: Runs, tmp_path: Path) -> None:
    whole = runs.demos.read_bytes()
    file = tmp_path / "cut.npz"
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert_one_line_of_error(efm("sft", "--demos", file, "--out", tmp_path / "sft"), f"{file} is not a complete file of episodes")


def test_a_truncated_checkpoint_is_an_error(efm: Efm, runs: Runs, tmp_path: Path) -> None:
    whole = (runs.sft / "checkpoints/policy.safetensors").read_bytes()
    file = tmp_path / "cut.safetensors"
    file.write_bytes(whole[:-1])
    assert_one_line_of_error(efm("eval", "--policy", file), f"{file} is not a complete checkpoint")


def test_a_folder_with_other_settings_is_an_error_that_names_the_setting(efm: Efm, runs: Runs) -> None:
    done = efm("sft", "--demos", runs.demos, "--out", runs.sft, *TINY_SFT, "--learning-rate", 0.5)
    assert_one_line_of_error(done, str(runs.sft), "learning_rate", "0.5 wanted")
    done = efm("improve", "--start", runs.sft, "--out", runs.improve, *TINY_IMPROVE, "--gamma", 0.5)
    assert_one_line_of_error(done, str(runs.improve), "gamma: 0.9 there, 0.5 wanted")


def test_a_setting_that_cannot_work_is_an_error_that_says_what_can(efm: Efm, runs: Runs, tmp_path: Path) -> None:
    done = efm("improve", "--start", runs.sft, "--out", tmp_path / "x", "--gamma", 2)
    assert_one_line_of_error(done, "gamma must be at most 1", "got 2")
    assert not (tmp_path / "x").exists()
    assert_one_line_of_error(efm("sft", "--demos", runs.demos, "--out", tmp_path / "x", "--steps", 0), "steps must be at least 1; got 0")


def test_a_number_of_episodes_that_cannot_work_is_an_error(efm: Efm, tmp_path: Path) -> None:
    assert_one_line_of_error(efm("demos", "--episodes", 0, "--out", tmp_path / "d.npz"), "0")
    assert_one_line_of_error(efm("eval", "--policy", "random", "--episodes", 0), "0")
    assert_one_line_of_error(efm("play", "--policy", "random", "--episodes", 0, "--video", tmp_path / "v.mp4"), "0")


def test_a_word_for_a_number_is_an_error_of_the_command_line(efm: Efm) -> None:
    done = efm("demos", "--episodes", "many")
    assert done.code == 2 and "--episodes" in done.err and "Traceback" not in done.err


def test_a_checkpoint_of_another_task_is_an_error_that_names_both(efm: Efm, runs: Runs, tmp_path: Path) -> None:
    for kind in ("policy", "steps_to_go"):
        weights, facts = load_checkpoint(runs.sft / f"checkpoints/{kind}.safetensors", kind)
        save_checkpoint(tmp_path / f"{kind}.safetensors", kind, weights, {**facts, "task": "Insert"})
    assert_one_line_of_error(efm("eval", "--policy", tmp_path / "policy.safetensors"), "'Insert'", "'PointMass'")
    reward = tmp_path / "steps_to_go.safetensors"
    done = efm("improve", "--start", runs.sft, "--reward", reward, "--out", tmp_path / "x", *TINY_IMPROVE)
    assert_one_line_of_error(done, "'Insert'", "'PointMass'")


def test_a_run_without_stage_1_is_an_error_that_says_what_makes_one(efm: Efm, tmp_path: Path) -> None:
    assert_one_line_of_error(efm("improve", "--start", tmp_path, "--out", tmp_path / "x"), "no 'policy' checkpoint", "`efm sft` makes one")


def test_a_place_where_nothing_can_be_written_is_an_error(efm: Efm, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_one_line_of_error(efm("demos", "--episodes", 2, "--out", tmp_path / "file" / "d.npz"), str(tmp_path / "file"))


def test_the_installed_command_prints_its_errors_on_stderr_and_ends_with_1(tmp_path: Path) -> None:
    done = run_apart("sft", "--demos", tmp_path / "absent.npz", "--out", tmp_path / "sft")
    assert done.code == 1
    assert_one_line_of_error(done, "no episodes at")


def test_a_reader_that_goes_away_is_no_error() -> None:
    done = subprocess.run(f"{EFM} envs {POINT_MASS} | true", shell=True, capture_output=True, text=True, check=False)
    assert done.stderr == ""


# -- videos -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def drawing() -> None:
    program = (
        "import gymnasium as gym, efm_envs; e = gym.make('EFM-PointMass-v0', render_mode='rgb_array'); e.reset(); e.render(); e.close()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"nothing can be drawn here: {done.stderr.strip().splitlines()[-1]}")


@pytest.mark.usefixtures("drawing")
def test_a_video_has_a_picture_for_every_step_and_half_a_second_at_each_end(tmp_path: Path) -> None:
    import imageio.v2 as imageio
    import numpy as np

    video = tmp_path / "new" / "v.mp4"
    done = run_apart("play", "--policy", "expert:clean", "--episodes", 2, "--seed", 3, "--video", video)
    assert done.code == 0 and done.out.endswith(f"\n2 of 2 episodes succeeded. Video: {video.resolve()}\n"), done
    seeds = episode_seeds(EpisodeSet.EVALUATION, 3)
    wanted = [next(seeds), next(seeds)]
    lengths = [len(e) for e in rollout(make_policy("expert:clean", POINT_MASS), POINT_MASS, wanted, terminate_on="true")]
    with imageio.get_reader(video) as reader:
        frames = [np.asarray(frame)[..., :3] for frame in reader]
    assert len(frames) == sum(lengths) + 2 * 5
    assert frames[0].shape == (480, 480, 3) and len(np.unique(frames[0].reshape(-1, 3), axis=0)) > 10, "the picture is empty"
    assert not np.array_equal(frames[0], frames[lengths[0] - 1]), "nothing moves"


@pytest.mark.usefixtures("drawing")
def test_a_gif_lasts_as_long_as_its_episodes(efm: Efm, tmp_path: Path) -> None:
    from PIL import Image

    done = efm("play", "--policy", "expert:clean", "--episodes", 1, "--video", tmp_path / "v.gif")
    assert done.code == 0
    seed = next(episode_seeds(EpisodeSet.EVALUATION, 0))
    (episode,) = rollout(make_policy("expert:clean", POINT_MASS), POINT_MASS, [seed], terminate_on="true")
    with Image.open(tmp_path / "v.gif") as image:
        lasts_ms = 0
        for k in range(image.n_frames):
            image.seek(k)
            lasts_ms += image.info["duration"]
    assert lasts_ms == 100 * (len(episode) + 5)


# -- dry runs and presets ----------------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_be_and_writes_nothing(runs: Runs, efm: Efm, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = efm("sft", "--demos", runs.demos, "--out", out, *TINY_SFT, "--dry-run", "--json")
    said = json.loads(done.out)
    assert said["steps"] == 60 and said["demonstrations"] > said["held_out"] > 0 and said["parameters"] > 0 < said["minutes"]
    done = efm("improve", "--start", runs.sft, "--out", out, *TINY_IMPROVE, "--dry-run", "--json")
    said = json.loads(done.out)
    assert said["rounds"] == 2 and said["minutes"] > 0 and not out.exists()


def test_settings_start_from_a_preset_and_those_given_beside_it_win(runs: Runs, efm: Efm, tmp_path: Path) -> None:
    efm("improve", "--start", runs.sft, "--out", tmp_path, "--preset", "efficient", *TINY_IMPROVE, "--epochs", "2", "--episodes", "4")
    written = json.loads((tmp_path / "config.json").read_text())
    assert (written["ratio_clip"], written["baseline_rounds"], written["epochs"], written["batch"]) == (0.2, 8, 2, 32)


def test_an_unknown_preset_is_refused_with_the_names_there_are(efm: Efm) -> None:
    assert_one_line_of_error(efm("sft", "--preset", "languagetable"), "unknown preset: 'languagetable'", "'language-table-cpu'")
