"""What Self-Improvement is compared with: one algorithm a file, on the same data, with the same accounting and the same evaluation.

| file | learns from |
| --- | --- |
| `more_demonstrations` | more of the expert's demonstrations, cloned |
| `filtered_bc` | practice episodes that the detector says succeeded, cloned |
| `progress_weighted_bc` | all practice, each action cloned by the exponential of the steps it gained |
| `sparse_reinforce` | 1 where success ends the episode: REINFORCE, or with a leave-one-out baseline (RLOO) |
| `grpo` | returns within a group of episodes that start alike, a clipped ratio, a KL to the SFT policy (GRPO) |
| `oracle_reinforce` | the task's own steps-to-go, by the update of the paper: what a perfect reward model would give |
| `success_classifier` | the change of a success classifier's probability, by the same update |
| `sb3` | the task's own steps-to-go, from scratch: PPO, SAC, and SAC with hindsight goals, of Stable-Baselines3 |

Each has `train(start, folder, config)`, or what the algorithm has in place of a start. A run's `metrics.jsonl` says after each round how
many `practice_episodes` and `env_steps` it has used; `checkpoints/policy.safetensors` is what it came to.
"""
