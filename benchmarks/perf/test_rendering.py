"""What pictures cost: beside MuJoCo's bare renderer, by workers, and by what could be switched on. `make bench`.

Read the minima, and only as ratios within one run.
"""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest

from benchmarks.perf.conftest import Measure
from efm_envs.task import SinglePhysics

NUM_ENVS = 16
SIZES = (64, 128)
ROUNDS = 25


def posed(envs: Any) -> list[mujoco.MjData]:
    """Returns what cameras see of each env, ready to be drawn."""
    datas = []
    for env in envs.envs:
        data = mujoco.MjData(envs.task.drawn_model)
        if envs.task.drawn_model is envs.task.model:
            data.qpos, data.mocap_pos, data.mocap_quat = env.physics.qpos[0], env.physics.mocap_pos[0], env.physics.mocap_quat[0]
        else:
            envs.task.pose(env.physics, SinglePhysics(data))
        mujoco.mj_forward(envs.task.drawn_model, data)
        datas.append(data)
    return datas


def draw_all(renderer: mujoco.Renderer, datas: list[mujoco.MjData], camera: str, *, reflects: bool = False) -> Callable[[], None]:
    def pictures() -> None:
        for data in datas:
            renderer.update_scene(data, camera=camera)
            if reflects:
                _largest_flat(renderer.scene).reflectance = 0.3
            renderer.render()

    return pictures


def _largest_flat(scene: mujoco.MjvScene) -> mujoco.MjvGeom:
    """Returns the floor, or the table: only planes and boxes can reflect."""
    flat = [geom for geom in scene.geoms[: scene.ngeom] if geom.type in (mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_BOX)]
    return max(flat, key=lambda geom: geom.size[0] * geom.size[1])


@pytest.mark.parametrize("size", SIZES)
def test_bare_renderer(measure: Measure, env_id: str, make_vec: Callable[..., Any], size: int) -> None:
    """The baseline: MuJoCo's own renderer in a loop, of the same scenes, ready to be drawn."""
    envs = make_vec(NUM_ENVS, obs_mode="pixels", image_size=(size, size)).unwrapped  # drawn once: what there is to set up is set up
    with mujoco.Renderer(envs.task.drawn_model, size, size) as renderer:
        draw = draw_all(renderer, posed(envs), envs.task.cameras[0])
        measure("pixels:bare", env_id, NUM_ENVS, draw, rounds=ROUNDS, size=size)


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_batch_pictures(measure: Measure, env_id: str, make_vec: Callable[..., Any], size: int, num_threads: int) -> None:
    """The pictures alone, of simulations that are elsewhere each."""
    envs = make_vec(NUM_ENVS, num_threads=num_threads, obs_mode="pixels", image_size=(size, size)).unwrapped
    cameras = [envs.task.cameras[0]] * NUM_ENVS
    facts = {"num_threads": num_threads, "size": size}
    measure("pixels:batch", env_id, NUM_ENVS, lambda: envs._observation_cameras.render(cameras), rounds=ROUNDS, **facts)


def draw_in_process(pipe: Connection, env_id: str, size: int, memory: str, first: int, rows: int) -> None:
    """Draws `rows` scenes, whose positions come through the pipe, to their places in a shared memory, whenever they come."""
    envs = gym.make_vec(env_id, num_envs=rows, num_threads=1, obs_mode="pixels", image_size=(size, size)).unwrapped
    envs.reset(seed=first)
    shared = SharedMemory(memory)
    pictures = np.ndarray((NUM_ENVS, size, size, 3), np.uint8, shared.buf)
    cameras = [envs.task.cameras[0]] * rows
    pipe.send("ready")
    while (state := pipe.recv()) is not None:
        for name, values in state.items():
            getattr(envs.physics, name)[:] = values
        pictures[first : first + rows] = envs._observation_cameras.render(cameras)
        pipe.send("drawn")
    envs.close()
    shared.close()


@pytest.mark.parametrize("size", SIZES)
def test_processes(measure: Measure, env_id: str, make_vec: Callable[..., Any], size: int) -> None:
    """What two processes would do in place of two threads: positions go there, pictures come back in shared memory."""
    envs, half = make_vec(NUM_ENVS).unwrapped, NUM_ENVS // 2
    shared = SharedMemory(create=True, size=NUM_ENVS * size * size * 3)
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for first in (0, half):
        mine, its = context.Pipe()
        processes.append(context.Process(target=draw_in_process, args=(its, env_id, size, shared.name, first, half)))
        processes[-1].start()
        pipes.append(mine)
    for pipe in pipes:
        assert pipe.recv() == "ready"

    def draw() -> None:
        for first, pipe in zip((0, half), pipes, strict=True):
            pipe.send({name: getattr(envs.physics, name)[first : first + half] for name in ("qpos", "mocap_pos", "mocap_quat")})
        for pipe in pipes:
            assert pipe.recv() == "drawn"
        np.ndarray((NUM_ENVS, size, size, 3), np.uint8, shared.buf).copy()

    try:
        measure("pixels:processes", env_id, NUM_ENVS, draw, rounds=ROUNDS, num_threads=2, size=size)
    finally:
        for pipe, process in zip(pipes, processes, strict=True):
            pipe.send(None)
            process.join()
        shared.close()
        shared.unlink()


@pytest.mark.parametrize("num_threads", [1, 2])
def test_batch_steps_with_pictures(measure: Measure, env_id: str, make_vec: Callable[..., Any], num_threads: int) -> None:
    envs = make_vec(NUM_ENVS, num_threads=num_threads, obs_mode="pixels", image_size=(64, 64))
    actions = np.zeros(envs.action_space.shape, np.float32)
    measure("pixels:steps", env_id, NUM_ENVS, lambda: envs.step(actions), rounds=ROUNDS, num_threads=num_threads, size=64)


def test_single_step_with_picture(measure: Measure, env_id: str, make: Callable[..., Any]) -> None:
    env = make(obs_mode="pixels", image_size=(64, 64))
    measure("pixels:single", env_id, 1, lambda: env.step(np.zeros(env.action_space.shape, np.float32)), rounds=3 * ROUNDS, size=64)


FLAGS = {
    "none": {},
    "multisampling": {"offsamples": 4},
    "reflections": {},
    "shadows": {"shadowsize": 1024},
    "MuJoCo's shadows": {"shadowsize": 4096},
    "MuJoCo's roundness": {"numslices": 28, "numstacks": 16, "numquads": 4},
}


@pytest.mark.parametrize("switched_on", FLAGS)
def test_price_of_looks(measure: Measure, env_id: str, make_vec: Callable[..., Any], switched_on: str) -> None:
    """Pictures of 96 × 96 with something switched on that our scenes leave off."""
    envs = make_vec(4, obs_mode="pixels").unwrapped
    model, datas = envs.task.drawn_model, posed(envs)
    for name, value in FLAGS[switched_on].items():
        setattr(model.vis.quality, name, value)
    model.light_castshadow[:] = "shadowsize" in FLAGS[switched_on]
    with mujoco.Renderer(model, 96, 96) as renderer:
        draw = draw_all(renderer, datas, envs.task.cameras[0], reflects=switched_on == "reflections")
        measure(f"looks:{switched_on}", env_id, len(datas), draw, size=96)
