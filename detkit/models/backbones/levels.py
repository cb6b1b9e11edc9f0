"""Which of a network's feature maps come out: by level or by the name of a layer."""

from collections.abc import Sequence

from detkit.types import FeatureSpec

OUT_LEVELS = ("P3", "P4", "P5")


def choose_levels(available: Sequence[FeatureSpec], out_levels: Sequence[str]) -> list[int]:
    """Positions of the wanted maps, in the order of the network.

    Args:
        available: every map that the network can give, in the order of its layers.
        out_levels: "P3" for the last map of stride 8, or the name of a layer.

    Raises:
        ValueError: if there is no such level or layer, one is named twice, or none at all.
    """
    positions = {spec.level: position for position, spec in enumerate(available)}  # of one stride, the last
    positions |= {spec.name: position for position, spec in enumerate(available)}
    unknown = [name for name in out_levels if name not in positions]
    if unknown or not out_levels:
        listed = ", ".join(f"{spec.level} ({spec.name}, {spec.channels} channels)" for spec in available)
        raise ValueError(
            f"out_levels: no level or layer {', '.join(unknown) or 'named'}; this network has {listed}; "
            "coarser levels are made by the neck: extra_levels"
        )
    chosen = sorted(positions[name] for name in out_levels)
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"out_levels: {', '.join(out_levels)} name the same map twice")
    return chosen
