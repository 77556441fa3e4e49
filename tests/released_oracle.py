"""What the released code does, written slowly from its description: no code of ours.

Lists and floats of Python alone, one reply and one token after another. Source: the
scripts of github.com/facebookresearch/RLCD at fac0b8f, its AlpacaFarm patch, and
AlpacaFarm at b68d7cf, which the patch is for.
"""

import math

MARK = "\n\nHuman:"


def accepted(decoded: str) -> str | None:
    """Return the reply in a sampled text with its end token as "</s>"; None: none."""
    human = decoded.find("Human")
    if human < 0:
        return None
    text = decoded[:human]
    newline, end = text.rfind("\n"), text.find("</s>")
    if newline < 0 and end < 0:
        return None
    if newline >= 0:
        text = text[:newline].strip()
    end = text.find("</s>")
    if end >= 0:
        text = text[:end].strip()
    header = text.find("Assistant:")
    if header >= 0:
        text = text[header + 10 :].strip()
    return text or None


def final_reply(decoded: str) -> str:
    """Return what is evaluated of a final reply."""
    mark = decoded.find(MARK)
    text = (decoded if mark < 0 else decoded[:mark]).strip()
    names = ("Human:", "Assistant:", "User:", "human:", "assistant:", "user:")
    for name in names:
        if text.strip().startswith(name):
            text = text.strip()[len(name) :].strip()
    for name in names:
        place = text.find(name)
        text = text if place < 0 else text[:place]
    return text.strip()


def contrast(prompt: str, positive: str, negative: str) -> tuple[str, str]:
    """Return the prompts p+ and p-: a dialogue with affixes in its headers."""

    def side(own: str, other: str) -> str:
        whole = prompt.endswith("\n\nAssistant:")
        head = prompt[: -len("\n\nAssistant:")] if whole else prompt + "PROMPT_END"
        head = f"\n\nAssistant ({other}):".join(head.split("\n\nAssistant:"))
        return head + (f"\n\nAssistant ({own}):" if whole else "")

    return side(positive, negative), side(negative, positive)


def scored_label(logit_a: float, logit_b: float) -> tuple[float, int]:
    """Return the probability that the second reply is better, and which one is."""
    top = max(logit_a, logit_b)
    a, b = math.exp(logit_a - top), math.exp(logit_b - top)
    probability = b / (a + b)
    return probability, 2 if probability > 0.5 else 1


def scoring_text(opening, prompt, instruction, reply_a, reply_b) -> str:
    """Return the text whose next letter is the label."""
    gap = "\n" * 4
    text = opening + gap + prompt.strip() + gap + instruction.strip() + gap
    return text + (
        f"Options:{gap}(A) {reply_a.strip()}{gap}(B) {reply_b.strip()}{gap}"
        "The answer is: ("
    )


def paid_score(decoded: str, score: float) -> float:
    """Return the reward of a whole reply: -1 without a mark, or with nothing before."""
    place = decoded.find(MARK)
    return -1.0 if place < 0 or not decoded[:place].strip() else score


def shaped(logprobs, ref_logprobs, sizes, scores, beta) -> list[list[float]]:
    """Return the reward of each token; pads have none."""
    rows = []
    for own, ref, size, score in zip(
        logprobs, ref_logprobs, sizes, scores, strict=True
    ):
        row = [0.0] * len(own)
        for t in range(size):
            row[t] = -beta * max(own[t] - ref[t], 0.0)
        row[size - 1] += score
        rows.append(row)
    return rows


def whiten(rows, keep_mean: bool) -> list[list[float]]:
    """Return rows with deviation 1 over all of their entries."""
    flat = [x for row in rows for x in row]
    mean = sum(flat) / len(flat)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in flat) / len(flat))
    back = mean if keep_mean else 0.0
    return [[(x - mean) / (deviation + 1e-8) + back for x in row] for row in rows]


def estimate(rewards, values, gamma: float, lam: float):
    """Return advantages before whitening, and returns, of the rewards of one process."""
    advantages, returns = [], []
    for row, value in zip(rewards, values, strict=True):
        next_value = next_advantage = 0.0
        own = [0.0] * len(row)
        for t in reversed(range(len(row))):
            delta = row[t] + gamma * next_value - value[t]
            next_advantage = own[t] = delta + gamma * lam * next_advantage
            next_value = value[t]
        advantages.append(own)
        returns.append([a + v for a, v in zip(own, value, strict=True)])
    return advantages, returns


def rolled_out(logprobs, ref_logprobs, values, sizes, scores, *, beta, rows):
    """Return rewards, advantages and returns; each process has so many rows."""
    rewards = shaped(logprobs, ref_logprobs, sizes, scores, beta)
    out = [], [], []
    for start in range(0, len(rewards), rows):
        own = slice(start, start + rows)
        whitened = whiten(rewards[own], keep_mean=True)
        advantages, returns = estimate(whitened, values[own], 1.0, 1.0)
        for part, made in zip(
            out, (whitened, whiten(advantages, keep_mean=False), returns), strict=True
        ):
            part.extend(made)
    return out


def loss(logprobs, old_logprobs, advantages, values, old_values, returns, sizes):
    """Return policy loss, value loss and their sum as an update weighs them."""
    policy = value = 0.0
    count = len(values) * len(values[0])
    for b, size in enumerate(sizes):
        for t in range(len(values[b])):
            ratio = math.exp(logprobs[b][t] - old_logprobs[b][t]) if t < size else 1.0
            clipped = min(max(ratio, 0.8), 1.2)
            policy += max(-advantages[b][t] * ratio, -advantages[b][t] * clipped)
            old, target = old_values[b][t], returns[b][t]
            near = min(max(values[b][t], old - 0.2), old + 0.2)
            value += max((values[b][t] - target) ** 2, (near - target) ** 2)
    policy, value = policy / count, 0.5 * value / count
    return policy, value, policy + 0.1 * value


def preference_loss(reward_1, reward_2, target) -> float:
    """Return the mean cross-entropy of sigmoid(reward_2 - reward_1) with the target."""
    total = 0.0
    for one, two, y in zip(reward_1, reward_2, target, strict=True):
        p = 1.0 / (1.0 + math.exp(one - two))
        total -= y * math.log(p) + (1.0 - y) * math.log(1.0 - p)
    return total / len(target)


def ppo_rate(step: int, steps: int, warmup: int) -> float:
    """Return the share of the highest rate in a PPO step, from 1."""
    done = step - 1
    return done / warmup if done < warmup else (steps - done) / (steps - warmup)


def supervised_rate(update: int, updates: int, warmup: int) -> float:
    """Return the share of the highest rate in an update, from 1: cosine to zero."""
    done = update - 1
    if done < warmup:
        return done / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (done - warmup) / (updates - warmup)))
