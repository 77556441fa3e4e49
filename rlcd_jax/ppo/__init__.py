"""PPO and its kin: what the policy wrote, what it earned, how it learns from that.

`acting` writes replies to `encoded_prompts` and freezes them in a `rollout`, as
`reply_reading` reads them, with the `step_notes` of the step; `kl_penalty` and `credit`
say what each token earned; `learning` makes the update; `choosing` says which
checkpoint is the policy. The loop over steps is a stage.
"""
