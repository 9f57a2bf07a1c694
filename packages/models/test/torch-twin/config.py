"""Configuration of the plain PyTorch Transformer-XL that the TypeScript model is compared with."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class TwinConfig:
    n_token: int
    n_layer: int
    n_head: int
    d_model: int
    d_head: int
    d_inner: int
    mem_len: int
    ext_len: int = 0
    dropout: float = 0.0
    dropatt: float = 0.0
    pre_lnorm: bool = False
    same_length: bool = False
    clamp_len: int = -1
    # 0 experts = a dense feed-forward in every layer.
    num_expert: int = 0
    top_k: int = 2
    # Weight of the balance loss, which is the mean over the layers.
    balance_weight: float = 0.01

    @property
    def is_moe(self) -> bool:
        return self.num_expert > 0

    def as_dict(self) -> dict:
        return asdict(self)
