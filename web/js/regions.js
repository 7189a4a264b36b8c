/** The parts of the face that can be chosen, and the node's widgets that belong to each. */
export const GROUPS = [
  { id: "", title: "Pose", widgets: ["yaw", "pitch", "roll", "x", "y", "z"] },
  { id: "brows", title: "Brows", widgets: ["brows", "browUp"] },
  { id: "eyes", title: "Eyes", widgets: ["gazeYaw", "gazePitch", "blink", "eyelidsLeft", "eyelidsRight",
    "gazeYawLeft", "gazeYawRight", "gazePitchLeft", "gazePitchRight"] },
  { id: "mouth", title: "Mouth", widgets: ["smile", "mouthCorners", "pucker"] },
  { id: "jaw", title: "Jaw", widgets: ["jawOpen", "jawGain"] },
  { id: "track", title: "Motion", widgets: ["neutralise", "expressionGain", "poseGain", "gazeGain"] },
]

/** "gazeYawLeft" as "gaze yaw left". @param {string} name */
export const spoken = (name) => name.replace(/([A-Z])/g, (c) => ` ${c.toLowerCase()}`)
