"""The socket types of Flow3D. A value on a wire is the class named beside it, never a dictionary."""

from comfy_api.latest import io

Head = io.Custom("FLOW3D_HEAD")  # flow3d.head.model.HeadModel
Track = io.Custom("FLOW3D_TRACK")  # flow3d.track.HeadTrack
Field = io.Custom("FLOW3D_FIELD")  # flow3d.flow.field.FlowField
Crop = io.Custom("FLOW3D_CROP")  # flow3d.crop.PortraitCrop
Appearance = io.Custom("FLOW3D_APPEARANCE")  # models.appearance_network.Appearance
Motion = io.Custom("FLOW3D_MOTION")  # models.motion.MotionModule
