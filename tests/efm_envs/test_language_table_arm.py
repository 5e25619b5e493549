"""The arm that is drawn holds the tool where it is, and the camera is the published one."""

import mujoco
import numpy as np
import pytest

import efm_assets
from efm_envs.tasks.language_table.arm import BASE_X_M, FLANGE_HEIGHT_M, arm_joints

WORKSPACE = np.stack(np.meshgrid(np.linspace(0.13, 0.62, 26), np.linspace(-0.325, 0.325, 27)), axis=-1).reshape(-1, 2)
PUBLISHED = WORKSPACE[(WORKSPACE[:, 0] >= 0.15) & (WORKSPACE[:, 0] <= 0.6) & (np.abs(WORKSPACE[:, 1]) <= 0.3048)]
DOWN = np.array([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, -1.0]])  # rotation vector (0, π, 0), the published one

Arm = tuple[mujoco.MjModel, mujoco.MjData]


def load(name: str) -> Arm:
    model = mujoco.MjModel.from_xml_path(str(efm_assets.path(f"language_table/{name}.xml")))
    return model, mujoco.MjData(model)


@pytest.fixture(scope="module")
def arm() -> Arm:
    return load("arm")


def pose(arm: Arm, joints: np.ndarray) -> mujoco.MjData:
    model, data = arm
    data.qpos[:] = joints
    mujoco.mj_kinematics(model, data)
    return data


# -- where the tool is ------------------------------------------------------------------------------------------------------------


def test_the_tip_is_above_its_point_and_the_tool_upright_all_over_the_workspace(arm: Arm) -> None:
    for point, joints in zip(WORKSPACE, arm_joints(WORKSPACE), strict=True):
        data = pose(arm, joints)
        flange, tip = data.site("arm_flange").xpos, data.site("arm_tip").xpos
        np.testing.assert_allclose(tip, [*point, 0.002], atol=1e-4)
        np.testing.assert_allclose(flange, [*point, FLANGE_HEIGHT_M], atol=1e-4)
        np.testing.assert_allclose(data.site("arm_flange").xmat.reshape(3, 3), DOWN, atol=1e-3)


def test_a_published_pose_of_the_real_kinematics_is_reproduced() -> None:
    """INITIAL_JOINT_POSITIONS of the published constants.py is PyBullet's solution for (0.3, -0.2), to about 5 mrad."""
    published = [
        -0.5875016909413221,
        0.15985553866983415,
        -0.4992862770497537,
        0.0017427885915130214,
        0.33927183830553914,
        -3.7249551487437524,
    ]
    np.testing.assert_allclose(arm_joints(np.array([[0.3 + BASE_X_M, -0.2]]))[0], published, atol=6e-3)


def test_the_real_joint_limits_hold_all_over_the_published_workspace(arm: Arm) -> None:
    low, high = arm[0].jnt_range.T
    joints = arm_joints(PUBLISHED)
    assert (low <= joints).all() and (joints <= high).all()


def test_mirrored_points_have_mirrored_arms() -> None:
    downwards = np.array([0, 0, 0, 0, 0, np.pi])  # joint 6 is -π where joint 1 is 0
    mirrored = arm_joints(WORKSPACE * [1, -1]) + downwards
    expected = (arm_joints(WORKSPACE) + downwards) * [-1, 1, 1, 1, 1, -1]
    np.testing.assert_allclose(mirrored, expected, atol=1e-12)


# -- points that cannot be reached, and motion --------------------------------------------------------------------------------------


def test_points_out_of_reach_get_the_nearest_posture_with_the_tool_still_upright(arm: Arm) -> None:
    bearing = np.stack([np.cos(np.linspace(-3, 3, 13)), np.sin(np.linspace(-3, 3, 13))], axis=1)
    for distance in (0.0, 1e-12, 0.05, 0.8, 5.0, 1e9, 1e308):
        joints = arm_joints(np.array([BASE_X_M, 0.0]) + distance * bearing)
        assert np.isfinite(joints).all()
        for direction, q in zip(bearing, joints, strict=True):
            data = pose(arm, q)
            tip = data.site("arm_tip").xpos
            np.testing.assert_allclose(data.site("arm_flange").xmat.reshape(3, 3), DOWN, atol=1e-3)
            assert tip[2] == pytest.approx(0.002, abs=1e-4)
            if distance >= 0.05:  # on the same bearing
                assert (tip[0] - BASE_X_M) * direction[1] == pytest.approx(tip[1] * direction[0], abs=1e-6)


def test_joints_move_continuously_all_over_the_workspace() -> None:
    for way in (0, 1):
        grid = np.stack(np.meshgrid(np.arange(0.13, 0.621, 0.01), np.arange(-0.325, 0.3251, 0.01), indexing="ij"), axis=-1)
        joints = arm_joints(grid.reshape(-1, 2)).reshape(*grid.shape[:2], 6)
        assert np.abs(np.diff(joints, axis=way)).max() < 0.3, "a step of 1 cm"


def test_a_batch_is_its_elements_one_by_one_and_float32_will_do() -> None:
    together = arm_joints(WORKSPACE)
    assert together.shape == (len(WORKSPACE), 6) and together.dtype == np.float64
    np.testing.assert_array_equal(together, np.concatenate([arm_joints(point[None]) for point in WORKSPACE]))
    single = arm_joints(WORKSPACE.astype(np.float32))
    assert single.dtype == np.float64
    np.testing.assert_allclose(single, together, atol=1e-4)


# -- what is seen -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["table", "arm"])
def test_every_part_has_a_name_and_can_only_be_seen(name: str) -> None:
    model, _ = load(name)
    counts = {
        "body": model.nbody,
        "geom": model.ngeom,
        "jnt": model.njnt,
        "site": model.nsite,
        "cam": model.ncam,
        "light": model.nlight,
    }
    for kind, count in counts.items():
        assert all(getattr(model, kind)(i).name for i in range(count)), f"a {kind} has no name"
    assert not model.geom_contype.any() and not model.geom_conaffinity.any()


def test_the_front_camera_is_the_published_one() -> None:
    """Pinhole: 0.803 · 320 px, centre (160, 90), at (0.75, 0, 0.5), 36 degrees off the vertical, the image's right is +y."""
    model, data = load("table")
    mujoco.mj_forward(model, data)
    assert model.cam(0).name == "front"
    s, c = np.sin(np.pi / 5), np.cos(np.pi / 5)
    right, up, ahead = np.array([0.0, 1.0, 0.0]), np.array([-c, 0.0, s]), np.array([-s, 0.0, -c])
    points = np.array([[0.15, -0.3048, 0.0], [0.6, 0.3048, 0.0], [0.375, 0.0, 0.0], [0.3, 0.1, 0.145], [0.2, -0.2, 0.3]])
    offset = points - [0.75, 0.0, 0.5]
    expected = 0.803 * 320 * np.stack([offset @ right, -offset @ up], axis=1) / (offset @ ahead)[:, None] + [160, 90]

    seen = (points - data.cam("front").xpos) @ data.cam("front").xmat.reshape(3, 3)  # in the camera's frame: x right, y up, z back
    focal = 90 / np.tan(np.deg2rad(model.cam("front").fovy[0]) / 2)
    pixels = focal * seen[:, :2] * [1, -1] / -seen[:, 2:] + [160, 90]
    np.testing.assert_allclose(pixels, expected, atol=0.01)


def test_the_whole_workspace_is_in_the_published_picture() -> None:
    model, data = load("table")
    mujoco.mj_forward(model, data)
    corners = np.array([[x, y, 0.0] for x in (0.15, 0.6) for y in (-0.3048, 0.3048)])
    seen = (corners - data.cam("front").xpos) @ data.cam("front").xmat.reshape(3, 3)
    height = np.tan(np.deg2rad(model.cam("front").fovy[0]) / 2)
    assert (np.abs(seen[:, :2] / seen[:, 2:]) <= 1.005 * height * np.array([320 / 180, 1.0])).all()


def test_right_is_plus_y_and_the_robot_is_at_the_top_from_the_front_and_from_above() -> None:
    model, data = load("table")
    mujoco.mj_forward(model, data)
    for camera in ("front", "top"):
        axes = data.cam(camera).xmat.reshape(3, 3)
        np.testing.assert_allclose(axes[:, 0], [0, 1, 0], atol=1e-12)
        assert axes[0, 1] < -0.8
