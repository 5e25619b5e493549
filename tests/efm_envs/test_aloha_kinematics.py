"""The closed-form kinematics of one ViperX 300s are those of its model, and the inverse undoes them."""

from collections.abc import Callable

import mujoco
import numpy as np
import pytest

import efm_assets
from efm_envs.tasks.aloha.kinematics import (
    FARTHEST_M,
    JOINT_HIGH,
    JOINT_LOW,
    JOINTS,
    NEAREST_M,
    SHOULDER_HEIGHT_M,
    WRIST_TO_TOOL_M,
    forward,
    inverse,
    tool_down,
)

PUBLISHED = """
<mujoco>
  <compiler angle="radian"/>
  <worldbody>
    <body pos="0 0 .079"><joint name="waist" axis="0 0 1" range="-3.14158 3.14158"/><geom size=".01"/>
      <body pos="0 0 .04805"><joint name="shoulder" axis="0 1 0" range="-1.85005 1.25664"/><geom size=".01"/>
        <body pos=".05955 0 .3"><joint name="elbow" axis="0 1 0" range="-1.76278 1.6057"/><geom size=".01"/>
          <body pos=".2 0 0"><joint name="forearm_roll" axis="1 0 0" range="-3.14158 3.14158"/><geom size=".01"/>
            <body pos=".1 0 0"><joint name="wrist_angle" axis="0 1 0" range="-1.8675 2.23402"/><geom size=".01"/>
              <body pos=".069744 0 0"><joint name="wrist_rotate" axis="1 0 0" range="-3.14158 3.14158"/><geom size=".01"/>
                <site name="tool" pos=".148 0 0"/>
              </body>
            </body>
          </body>
        </body>
      </body>
    </body>
  </worldbody>
</mujoco>
"""

SHOULDER = np.array([0.0, 0.0, SHOULDER_HEIGHT_M])
STRETCHED = np.arctan2(0.05955, 0.3) - np.pi / 2  # the elbow when upper arm and forearm are one line: -1.3748
HOME = np.array([0.0, -0.96, 1.16, 0.0, 0.75, 0.0])
WORKSPACE = np.stack(np.meshgrid(np.linspace(0.219, 0.519, 16), np.linspace(-0.15, 0.15, 13), np.linspace(0.01, 0.3, 15)), axis=-1)


def random_joints(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(JOINT_LOW, JOINT_HIGH, (count, 6))


def our_posture(count: int) -> np.ndarray:
    """Random joints of which the waist faces the wrist's centre and the elbow is above the line from shoulder to wrist."""
    joints = random_joints(count)
    turned = joints * [0, 1, 1, 1, 1, 1]
    return joints[(wrist_centre(*forward(turned))[:, 0] > 0) & (joints[:, 2] > STRETCHED)]


def wrist_centre(position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    return position - WRIST_TO_TOOL_M * rotation[..., 0]


def largest_error(joints: np.ndarray, position: np.ndarray, rotation: np.ndarray) -> float:
    """Of the pose that joints have, in [m] and of the rotation's elements."""
    found_position, found_rotation = forward(joints)
    return max(np.abs(found_position - position).max(), np.abs(found_rotation - rotation).max())


def is_within(joints: np.ndarray) -> bool:
    return bool(np.isfinite(joints).all() and (joints >= JOINT_LOW).all() and (joints <= JOINT_HIGH).all())


def random_rotations(count: int) -> np.ndarray:
    return forward(random_joints(count, seed=1))[1]


# -- forward ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["published", "asset"])
def test_forward_is_where_the_simulation_has_the_tool(source: str) -> None:
    if source == "published":
        model = mujoco.MjModel.from_xml_string(PUBLISHED)
    else:
        model = mujoco.MjModel.from_xml_path(str(efm_assets.path("aloha/vx300s.xml")))
    data = mujoco.MjData(model)
    addresses = [model.joint(name).qposadr[0] for name in JOINTS]
    np.testing.assert_array_equal([model.joint(name).range for name in JOINTS], np.stack([JOINT_LOW, JOINT_HIGH], axis=1))
    for joints in random_joints(300):
        data.qpos[addresses] = joints
        mujoco.mj_kinematics(model, data)
        tool = data.site("tool")
        assert largest_error(joints, tool.xpos, tool.xmat.reshape(3, 3)) < 1e-12


def test_at_zero_the_forearm_is_level_and_the_tool_ahead_of_it() -> None:
    position, rotation = forward(np.zeros(6))
    np.testing.assert_allclose(position, [0.05955 + 0.3 + 0.069744 + 0.148, 0.0, 0.079 + 0.04805 + 0.3], atol=1e-15)
    np.testing.assert_array_equal(rotation, np.eye(3))


def test_forward_leaves_its_argument_alone() -> None:
    joints = HOME.copy()
    forward(joints)
    np.testing.assert_array_equal(joints, HOME)


# -- the inverse undoes forward ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("branch", [1, -1])
def test_a_pose_of_our_posture_is_reached_exactly(branch: int) -> None:
    joints = our_posture(8000)
    joints = joints[branch * joints[:, 4] > 0]
    assert len(joints) > 2000
    solution = inverse(*forward(joints))
    assert solution.is_reachable.all()
    assert is_within(solution.joints)
    assert largest_error(solution.joints, *forward(joints)) < 1e-12


def test_the_joints_are_found_again_when_wrist_angle_is_positive() -> None:
    joints = our_posture(8000)
    joints = joints[joints[:, 4] > 0]
    np.testing.assert_allclose(inverse(*forward(joints)).joints, joints, atol=1e-8)  # rolls are poorly determined near wrist_angle 0


def test_home_is_found_again_with_its_elbow_up() -> None:
    np.testing.assert_allclose(inverse(*forward(HOME)).joints, HOME, atol=1e-12)


def test_whatever_is_called_reachable_is_reached_and_the_rest_is_within_the_limits() -> None:
    """Also of poses that other postures have: over the shoulder, elbow below."""
    position, rotation = forward(random_joints(4000))
    solution = inverse(position, rotation)
    reached = solution.is_reachable
    assert is_within(solution.joints)
    assert 0.5 < reached.mean() < 1.0
    assert largest_error(solution.joints[reached], position[reached], rotation[reached]) < 1e-12


@pytest.mark.parametrize("forearm_roll", [0.0, 0.1])
def test_wrist_angle_is_negative_where_a_roll_would_else_leave_its_range(forearm_roll: float) -> None:
    joints = np.array([*HOME[:3], forearm_roll, -0.75, 0.0])  # with +0.75, wrist_rotate is π
    solution = inverse(*forward(joints))
    assert solution.is_reachable
    np.testing.assert_allclose(solution.joints, joints, atol=1e-12)


def test_wrist_angle_is_positive_where_neither_solution_of_the_wrist_is_within_the_ranges() -> None:
    joints = np.array([*HOME[:3], 0.1, 2.0, np.pi])  # with -2.0, wrist_angle is outside
    solution = inverse(*forward(joints))
    assert not solution.is_reachable
    np.testing.assert_allclose(np.abs(solution.joints), np.abs([*joints[:5], JOINT_HIGH[5]]), atol=1e-12)


# -- the tasks' workspace -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pitch_rad", [1.0, 1.1, 1.2])
def test_the_whole_workspace_is_reachable_with_a_margin_at_every_joint(pitch_rad: float) -> None:
    solution = tool_down(WORKSPACE, pitch_rad)
    assert solution.is_reachable.all()
    assert np.minimum(solution.joints - JOINT_LOW, JOINT_HIGH - solution.joints).min() > 0.2


def test_joints_move_continuously_over_the_workspace() -> None:
    """The rolls are fastest, 0.2 rad a centimetre, low and near the base: there the wrist is almost straight."""
    grid = np.stack(np.meshgrid(np.arange(0.219, 0.5191, 0.01), np.arange(-0.15, 0.151, 0.01), np.arange(0.01, 0.301, 0.01)), axis=-1)
    joints = tool_down(grid, 1.1).joints
    for axis in range(3):
        assert np.abs(np.diff(joints, axis=axis)).max() < 0.25, "a step of 1 cm"


def test_tool_down_points_ahead_and_down_and_its_fingers_close_along_y() -> None:
    solution = tool_down(WORKSPACE, 1.1)
    position, rotation = forward(solution.joints)
    np.testing.assert_allclose(position, WORKSPACE, atol=1e-12)
    np.testing.assert_allclose(rotation[..., 0], np.broadcast_to([np.cos(1.1), 0, -np.sin(1.1)], position.shape), atol=1e-12)
    np.testing.assert_allclose(rotation[..., 1], np.broadcast_to([0, 1, 0], position.shape), atol=1e-12)


def test_mirrored_points_have_mirrored_arms() -> None:
    left, right = tool_down(WORKSPACE, 1.1).joints, tool_down(WORKSPACE * [1, -1, 1], 1.1).joints
    np.testing.assert_allclose(right, left * [-1, 1, 1, -1, 1, -1], atol=1e-12)


# -- out of reach -----------------------------------------------------------------------------------------------------------------


def poses_on_the_sphere(elbow: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Poses with the elbow stretched or folded, and the directions from the shoulder to their wrists' centres."""
    shoulder = (0.0, 1.2) if elbow == STRETCHED else (-1.5, 0.5)  # the wrist's centre is ahead
    low, high = [-3.0, shoulder[0], elbow, -0.5, 0.2, -0.5], [3.0, shoulder[1], elbow, 0.5, 1.0, 0.5]
    position, rotation = forward(np.random.default_rng(2).uniform(low, high, (500, 6)))
    offset = wrist_centre(position, rotation) - SHOULDER
    return position, rotation, offset / np.linalg.norm(offset, axis=1, keepdims=True)


@pytest.mark.parametrize(("elbow", "distance", "outwards"), [(STRETCHED, FARTHEST_M, 1), (JOINT_HIGH[2], NEAREST_M, -1)])
def test_reach_ends_at_two_spheres_around_the_shoulder(elbow: float, distance: float, outwards: int) -> None:
    position, rotation, direction = poses_on_the_sphere(elbow)
    for inside in (0.0, 1e-9, 1e-3):
        wish = position - outwards * inside * direction
        solution = inverse(wish, rotation)
        assert solution.is_reachable.all()
        assert largest_error(solution.joints, wish, rotation) < 1e-12
    for outside in (1e-9, 1e-3):
        solution = inverse(position + outwards * outside * direction, rotation)
        assert not solution.is_reachable.any()
        assert is_within(solution.joints)
        found = wrist_centre(*forward(solution.joints))
        np.testing.assert_allclose(found, SHOULDER + distance * direction, atol=1e-12)


def test_a_wish_too_far_or_too_near_gets_the_nearest_wrist_centre_there_is() -> None:
    rng = np.random.default_rng(3)
    waist, tilt = rng.uniform(-3, 3, 60), rng.uniform(0.05, 1.4, 60)  # tilt from the vertical, where the shoulder is within its range
    direction = np.stack([np.sin(tilt) * np.cos(waist), np.sin(tilt) * np.sin(waist), np.cos(tilt)], axis=1)
    distance = np.repeat([1e-3, 0.03, 0.7, 1.0, 30.0, 1e6], 10)
    wished, rotation = SHOULDER + distance[:, None] * direction, random_rotations(60)
    solution = inverse(wished + WRIST_TO_TOOL_M * rotation[..., 0], rotation)
    assert not solution.is_reachable.any()
    assert is_within(solution.joints)
    found = np.linalg.norm(wrist_centre(*forward(solution.joints)) - wished, axis=1)
    anywhere = wrist_centre(*forward(random_joints(10_000)))
    nearest = np.linalg.norm(anywhere - wished[:, None], axis=2).min(axis=1)
    assert (found <= nearest + 1e-9 * np.maximum(1.0, distance)).all()
    np.testing.assert_allclose(found, np.maximum(distance - FARTHEST_M, NEAREST_M - distance), rtol=1e-12, atol=1e-9)


def test_the_wrist_keeps_the_wished_rotation_when_the_arm_falls_short() -> None:
    position, rotation = np.array([[0.6, 0.0, -0.7], [5.0, 1.0, 0.2]]), forward(HOME)[1]
    solution = inverse(position, rotation)
    assert not solution.is_reachable.any()
    assert solution.joints[0, 1] == JOINT_HIGH[1]
    np.testing.assert_allclose(forward(solution.joints)[1], np.broadcast_to(rotation, (2, 3, 3)), atol=1e-12)


def test_a_joint_outside_its_range_is_clipped_to_it() -> None:
    position, rotation = forward(np.array([*HOME[:4], JOINT_HIGH[4] + 0.1, 0.0]))
    solution = inverse(position, rotation)
    assert not solution.is_reachable
    np.testing.assert_allclose(solution.joints, [*HOME[:4], JOINT_HIGH[4], 0.0], atol=1e-12)


# -- edges ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("joint", "side"), [(0, 0), (0, 1), (1, 1), (2, 1), (3, 0), (3, 1), (4, 0), (4, 1), (5, 0), (5, 1)])
def test_a_joint_at_its_very_limit_is_reachable(joint: int, side: int) -> None:
    """The elbow is not ours at its lower limit, nor is the wrist's centre ahead of the waist at the shoulder's."""
    joints = np.array([1.0, 0.2, 0.5, 0.5, 0.7, 0.3])
    joints[joint] = (JOINT_LOW, JOINT_HIGH)[side][joint]
    position, rotation = forward(joints)
    solution = inverse(position, rotation)
    assert solution.is_reachable
    assert largest_error(solution.joints, position, rotation) < 1e-12


def test_at_wrist_angle_zero_wrist_rotate_takes_all_the_roll() -> None:
    joints = our_posture(2000)
    joints[:, 3:5] = joints[:, 3:5] / 3.0 * [1, 0]
    joints[:, 5] /= 3.0
    position, rotation = forward(joints)
    solution = inverse(position, rotation)
    assert solution.is_reachable.all()
    assert largest_error(solution.joints, position, rotation) < 1e-12
    settled = np.abs(solution.joints[:, 4]) < 1e-13
    assert settled.mean() > 0.9, "else the arm is nearly stretched and its angles are rounded"
    assert (solution.joints[settled, 3] == 0.0).all()
    np.testing.assert_allclose(solution.joints[settled, 5], joints[settled, 3] + joints[settled, 5], atol=1e-12)


@pytest.mark.parametrize("wrist_angle", [1e-15, 1e-13, 1e-12, 1e-9, 1e-6, -1e-9])
def test_near_the_singularity_the_pose_is_as_exact_as_elsewhere(wrist_angle: float) -> None:
    joints = our_posture(2000)
    joints[:, 4] = wrist_angle
    position, rotation = forward(joints)
    solution = inverse(position, rotation)
    reached = solution.is_reachable  # in all but a few, whose roll is in the gap of the rolls' ranges at π
    assert reached.mean() > 0.99
    assert largest_error(solution.joints[reached], position[reached], rotation[reached]) < 1e-12


def test_the_waist_is_zero_when_the_wrists_centre_is_on_its_axis() -> None:
    rotation = random_rotations(50)
    height = np.linspace(0.3, 0.6, 50)
    wish = np.stack([np.zeros(50), np.zeros(50), height], axis=1) + WRIST_TO_TOOL_M * rotation[..., 0]
    solution = inverse(wish, rotation)
    assert (solution.joints[:, 0] == 0.0).all()
    assert solution.is_reachable.any()
    assert largest_error(solution.joints[solution.is_reachable], wish[solution.is_reachable], rotation[solution.is_reachable]) < 1e-12


@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("height", [0.0, SHOULDER_HEIGHT_M, 0.4, 1e6, -1e6])
def test_joints_are_finite_and_within_their_limits_on_the_waists_axis_and_at_the_shoulder(zero: float, height: float) -> None:
    point, rotation = np.array([zero, zero, height]), random_rotations(50)
    assert is_within(inverse(point, rotation).joints), "the tool"
    assert is_within(inverse(point + WRIST_TO_TOOL_M * rotation[..., 0], rotation).joints), "the wrist's centre"
    downwards = np.array([[zero, 0.0, 1.0], [zero, 1.0, 0.0], [-1.0, 0.0, 0.0]])
    assert is_within(inverse(point - np.array([0.0, 0.0, WRIST_TO_TOOL_M]), downwards).joints), "the wrist's centre, exactly"


def test_joints_are_within_their_limits_for_any_finite_wish() -> None:
    rng = np.random.default_rng(4)
    rotation = random_rotations(2000)
    for scale in (1e-9, 0.1, 1.0, 1e6, 1e150):
        solution = inverse(rng.uniform(-scale, scale, (2000, 3)), rotation)
        assert is_within(solution.joints)
        assert scale < 1e3 or not solution.is_reachable.any()
    for signs in np.stack(np.meshgrid(*[[-1e6, 0.0, 1e6]] * 3), axis=-1).reshape(-1, 3):
        assert is_within(inverse(signs, rotation).joints)
        assert is_within(tool_down(signs, 1.1).joints)


def test_straight_behind_is_just_outside_the_waists_range() -> None:
    solution = tool_down(np.array([-0.4, 0.0, 0.2]), np.pi - 1.1)
    assert not solution.is_reachable
    assert abs(solution.joints[0]) == JOINT_HIGH[0]


# -- batches ----------------------------------------------------------------------------------------------------------------------


def mixed_poses() -> tuple[np.ndarray, np.ndarray]:
    """64 poses: ordinary, either solution of the wrist, singular, too far, too near."""
    joints = our_posture(300)[:64]
    joints[1::8] = HOME * [1, 1, 1, 1, -1, 1]
    joints[2::8, 3:5] = 0.0
    position, rotation = forward(joints)
    position[3::8] *= 1e6
    position[4::8] = SHOULDER
    return position, rotation


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_a_row_is_bit_identical_alone_and_in_a_batch(size: int) -> None:
    position, rotation = mixed_poses()
    functions: list[tuple[Callable[..., tuple[np.ndarray, np.ndarray]], tuple[np.ndarray, ...]]] = [
        (forward, (random_joints(64),)),
        (inverse, (position, rotation)),
        (lambda points: tool_down(points, 1.1), (position,)),
    ]
    for function, arguments in functions:
        alone = [function(*(argument[row] for argument in arguments)) for row in range(64)]
        for start in range(0, 65 - size, size):
            together = function(*(argument[start : start + size] for argument in arguments))
            for part in (0, 1):
                np.testing.assert_array_equal(together[part], np.stack([alone[start + row][part] for row in range(size)]))


def test_strided_input_gives_the_same_bits() -> None:
    position, rotation = mixed_poses()
    for mine, plain in zip(
        inverse(np.asfortranarray(position), np.asfortranarray(rotation)) + forward(np.asfortranarray(random_joints(64))),
        inverse(position, rotation) + forward(random_joints(64)),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, plain)


@pytest.mark.parametrize("shape", [(), (5,), (3, 2), (0,)])
def test_any_leading_shape_will_do(shape: tuple[int, ...]) -> None:
    joints = np.broadcast_to(HOME, (*shape, 6))
    position, rotation = forward(joints)
    assert position.shape == (*shape, 3) and rotation.shape == (*shape, 3, 3)
    for solution in (inverse(position, rotation), tool_down(position, 0.95)):
        assert isinstance(solution.is_reachable, np.ndarray)
        assert solution.is_reachable.shape == shape and solution.is_reachable.dtype == bool
        assert solution.joints.shape == (*shape, 6) and solution.joints.dtype == np.float64
        np.testing.assert_allclose(solution.joints, joints, atol=1e-12)


@pytest.mark.parametrize(("left", "right"), [((), (5,)), ((5,), ()), ((3, 2), (2,)), ((3, 1), (2,))])
def test_position_and_rotation_broadcast(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    position, rotation = forward(HOME)
    solution = inverse(np.broadcast_to(position, (*left, 3)), np.broadcast_to(rotation, (*right, 3, 3)))
    shape = np.broadcast_shapes(left, right)
    assert solution.is_reachable.shape == shape
    np.testing.assert_allclose(solution.joints, np.broadcast_to(HOME, (*shape, 6)), atol=1e-12)


def test_single_precision_and_lists_are_computed_in_double() -> None:
    point = np.array([0.4, 0.1, 0.1], np.float32)
    np.testing.assert_array_equal(tool_down(point, 1.1).joints, tool_down(point.astype(np.float64), 1.1).joints)
    np.testing.assert_array_equal(tool_down(np.asarray([0, 0, 1]), 1.1).joints, tool_down(np.array([0.0, 0.0, 1.0]), 1.1).joints)
    assert forward(HOME.astype(np.float32))[0].dtype == np.float64
