"""A colorizer whose weights are set by hand."""

import torch

from ctlib.models.zhang2017 import Zhang2017


def repeater(mask_cent: float = 0.0, told: float = 0.0) -> Zhang2017:
    """A network by hand that paints each hint where it is: a and b pass through conv1, its shortcut and the ab head.

    It passes them where it sees the mask, and expects that to be shifted by `told`.
    """
    net = Zhang2017(width=0.125, mask_cent=mask_cent).eval()
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if "running" not in name and "tracked" not in name:
                value.zero_()
        for norm in (net.model1[4], net.model2[4], net.model3[6]):
            norm.weight.fill_(1)
        first, short, last = net.model1[0].weight, net.model1short10[0].weight, net.model10[1].weight
        for channel in (0, 1):  # a and b, each as what is above and what is below 0
            for place, sign in ((2 * channel, 1), (2 * channel + 1, -1)):
                first[place, 1 + channel, 1, 1] = sign
                first[place, 3, 1, 1] = 10.0
                net.model1[0].bias[place] = 10.0 * told - 10.0  # nothing passes where the mask is 0
                net.model1[2].weight[place, place, 1, 1] = short[place, place, 1, 1] = last[place, place, 1, 1] = 1
                net.model_out[0].weight[channel, place] = sign
    return net
