"""Methods of editing pictures with diffusion models behind one face: OIG and what it is compared with."""

from ..._modes import own_modes
from ..edit.oig import OIGConfig
from .ddim_swap import DdimSwapConfig, ddim_swap
from .diffedit import DiffEditConfig, diffedit
from .flow_edit import FlowEditConfig, flow_edit
from .flow_swap import FlowSDEditConfig, FlowSwapConfig, flow_sdedit, flow_swap
from .instruct_pix2pix import InstructPix2PixConfig, instruct_pix2pix
from .ledits import LeditsConfig, ledits
from .masactrl import MasaCtrlConfig, masactrl
from .no_edit import NoEditConfig, no_edit
from .null_text import NullTextConfig, null_text
from .oig import oig
from .pix2pix_zero import Pix2PixZeroConfig, pix2pix_zero
from .plug_and_play import PlugAndPlayConfig, plug_and_play
from .rf_inversion import RFInversionConfig, rf_inversion
from .task import FLOW, UNET, EditMethod, EditModels, EditTask, require_suited

_METHODS = {
    "no_edit": EditMethod("no edit", NoEditConfig, no_edit, (UNET, FLOW)),
    "oig": EditMethod("OIG", OIGConfig, oig, (UNET, FLOW)),
    "ddim_swap": EditMethod("DDIM swap", DdimSwapConfig, ddim_swap),
    "plug_and_play": EditMethod("Plug-and-Play", PlugAndPlayConfig, plug_and_play),
    "masactrl": EditMethod("MasaCtrl", MasaCtrlConfig, masactrl),
    "null_text": EditMethod("null-text inversion", NullTextConfig, null_text),
    "diffedit": EditMethod("DiffEdit", DiffEditConfig, diffedit, inverted=False),
    "pix2pix_zero": EditMethod("Pix2Pix-Zero", Pix2PixZeroConfig, pix2pix_zero),
    "ledits": EditMethod("LEDITS++", LeditsConfig, ledits, inverted=False),
    "instruct_pix2pix": EditMethod(
        "InstructPix2Pix", InstructPix2PixConfig, instruct_pix2pix, inverted=False
    ),
    "flow_swap": EditMethod("swap", FlowSwapConfig, flow_swap, (FLOW,)),
    "flow_sdedit": EditMethod("SDEdit", FlowSDEditConfig, flow_sdedit, (FLOW,), inverted=False),
    "flow_edit": EditMethod("FlowEdit", FlowEditConfig, flow_edit, (FLOW,), inverted=False),
    "rf_inversion": EditMethod("RF-Inversion", RFInversionConfig, rf_inversion, (FLOW,), inverted=False),
}
METHODS = {name: method._replace(run=own_modes(method.run)) for name, method in _METHODS.items()}

__all__ = ["FLOW", "METHODS", "UNET", "EditMethod", "EditModels", "EditTask", "require_suited"]
