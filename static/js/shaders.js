/** Programs for the graphics card. Screen places are device pixels until the last step. */

import { DASHED_FROM, OUTLINED_FROM, SHAPE_FROM, SOLID_BELOW } from "./looks.js";
import { TABLE_WIDTH } from "./mesh.js";

const HEAD = `#version 300 es
precision highp float;
precision highp sampler2D;
precision highp usampler2D;
`;

/** What every program on features knows: which are shown, and how. */
const FEATURES = `${HEAD}
uniform vec4 uTurn;      // from the block's places to device pixels: a, b, c, d
uniform vec2 uShift;     // and e, f
uniform vec2 uSize;      // of the picture, device pixels
uniform float uScale;    // device pixels per base-plane pixel
uniform float uDensity;  // device pixels per CSS pixel
uniform float uLeast;    // score
uniform int uDepth;      // looks of the layers below
uniform bool uByState;
uniform sampler2D uTable;   // per feature: score, class, diameter, longer side
uniform usampler2D uStates; // per feature
uniform sampler2D uLooks;   // per look: colour and filling; line, width, dot, dashed

struct Feature { bool shown; int look; vec3 color; float fill; float line; float width; float dot; bool dashed; float diameter; float extent; };

Feature read(int number) {
  ivec2 at = ivec2(number % ${TABLE_WIDTH}, number / ${TABLE_WIDTH});
  vec4 row = texelFetch(uTable, at, 0);
  int look = uByState ? int(texelFetch(uStates, at, 0).r) : int(row.y);
  vec4 one = texelFetch(uLooks, ivec2(look, 0), 0);
  vec4 other = texelFetch(uLooks, ivec2(look, 1), 0);
  float diameter = row.z * uScale / uDensity;
  float extent = row.w * uScale / uDensity;
  float share = clamp((diameter - ${SOLID_BELOW.toFixed(1)}) / ${(OUTLINED_FROM - SOLID_BELOW).toFixed(1)}, 0.0, 1.0);
  float width = other.y * share * min(1.0, diameter / ${OUTLINED_FROM.toFixed(1)}) * uDensity;
  return Feature(row.x >= uLeast && other.z >= 0.0, look, one.rgb, mix(other.z, one.a, share), other.x, width, other.z,
    other.w > 0.0 && extent >= ${DASHED_FROM.toFixed(1)}, diameter, extent);
}

vec2 place(vec2 at) {
  return vec2(uTurn.x * at.x + uTurn.z * at.y, uTurn.y * at.x + uTurn.w * at.y) + uShift;
}

vec4 toClip(vec2 pixel, float depth) {
  return vec4(pixel.x / uSize.x * 2.0 - 1.0, 1.0 - pixel.y / uSize.y * 2.0, depth, 1.0);
}

const vec4 NOWHERE = vec4(2.0, 2.0, 2.0, 1.0);
`;

const COLOR = `${HEAD}
flat in vec4 vColor;
out vec4 color;
void main() { color = vec4(vColor.rgb * vColor.a, vColor.a); }
`;

/** Triangles of fans, in their own colours. */
export const FAN = [`${FEATURES}
layout(location = 0) in vec2 aPlace;
layout(location = 3) in uvec2 aFeature;
flat out vec4 vColor;
void main() {
  Feature feature = read(int(aFeature.x));
  bool drawn = feature.shown && feature.fill > 0.0 && feature.extent >= ${SHAPE_FROM.toFixed(1)};
  vColor = vec4(feature.color, feature.fill);
  gl_Position = drawn ? toClip(place(aPlace), 0.0) : NOWHERE;
}`, COLOR];

/** Triangles that only count windings, of one look and of small or large features. */
export const WINDING = [`${FEATURES}
layout(location = 0) in vec2 aPlace;
layout(location = 3) in uvec2 aFeature;
uniform int uLook;
uniform bool uSmall;
flat out vec4 vColor;
void main() {
  Feature feature = read(int(aFeature.x));
  bool small = feature.diameter < ${OUTLINED_FROM.toFixed(1)};
  bool drawn = feature.shown && feature.look == uLook && small == uSmall && feature.extent >= ${SHAPE_FROM.toFixed(1)};
  vColor = vec4(0.0);
  gl_Position = drawn ? toClip(place(aPlace), 0.0) : NOWHERE;
}`, COLOR];

/** One colour wherever windings were counted. */
export const COVER = [`${HEAD}
uniform vec4 uColor;
flat out vec4 vColor;
void main() {
  vColor = uColor;
  gl_Position = vec4(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0, 0.0, 1.0);
}`, COLOR];

/** An edge as a rectangle. All of one look lie at one depth and nothing is drawn twice there, so edges join evenly. */
export const LINE = [`${FEATURES}
layout(location = 0) in vec2 aFrom;
layout(location = 1) in float aAlong;
layout(location = 2) in vec2 aTo;
layout(location = 3) in uvec2 aFeature;
layout(location = 4) in float aAlongTo;
uniform bool uCasing;
uniform vec4 uCasingColor; // its alpha is a share of the line's
flat out vec4 vColor;
flat out float vDash;
out float vAlong;
void main() {
  Feature feature = read(int(aFeature.x));
  float width = feature.width + (uCasing ? 1.5 * uDensity : 0.0);
  bool drawn = feature.shown && feature.line > 0.0 && feature.width >= 0.1 && aFeature.y == 0u
    && feature.extent >= ${SHAPE_FROM.toFixed(1)} && (!uCasing || feature.dashed);
  vec2 from = place(aFrom);
  vec2 to = place(aTo);
  vec2 along = to - from;
  float length = length(along);
  vec2 unit = length > 0.0 ? along / length : vec2(1.0, 0.0);
  bool end = gl_VertexID >= 2;
  float side = gl_VertexID % 2 == 0 ? -0.5 : 0.5;
  vec2 pixel = (end ? to : from) + width * (unit * (end ? 0.5 : -0.5) + vec2(-unit.y, unit.x) * side);
  float depth = 1.0 - (float(uDepth + feature.look) + (uCasing ? 0.5 : 1.0)) / 2048.0;
  vColor = uCasing ? vec4(uCasingColor.rgb, uCasingColor.a * feature.line) : vec4(feature.color, feature.line);
  vDash = feature.dashed && !uCasing ? uDensity : 0.0;
  vAlong = (end ? aAlongTo : aAlong) * uScale;
  gl_Position = drawn ? toClip(pixel, depth) : NOWHERE;
}`, `${HEAD}
flat in vec4 vColor;
flat in float vDash;
in float vAlong;
out vec4 color;
void main() {
  if (vDash > 0.0 && mod(vAlong, 9.0 * vDash) > 5.0 * vDash) discard;
  color = vec4(vColor.rgb * vColor.a, vColor.a);
}`];

/** A square of the area of a feature too small for a shape. */
export const DOT = [`${FEATURES}
layout(location = 0) in vec2 aPlace;
layout(location = 1) in float aSide;
flat out vec4 vColor;
void main() {
  Feature feature = read(gl_VertexID);
  float side = aSide * uScale;
  gl_PointSize = max(1.0, side);
  vColor = vec4(feature.color, feature.dot * min(1.0, side * side));
  gl_Position = feature.shown && feature.extent < ${SHAPE_FROM.toFixed(1)} ? toClip(place(aPlace), 0.0) : NOWHERE;
}`, COLOR];

/** A picture over its box. */
export const PICTURE = [`${HEAD}
uniform vec4 uTurn;
uniform vec2 uShift;
uniform vec2 uSize;
uniform vec4 uBox;
out vec2 vPlace;
void main() {
  vPlace = vec2(gl_VertexID % 2, gl_VertexID / 2);
  vec2 at = mix(uBox.xy, uBox.zw, vPlace);
  vec2 pixel = vec2(uTurn.x * at.x + uTurn.z * at.y, uTurn.y * at.x + uTurn.w * at.y) + uShift;
  gl_Position = vec4(pixel.x / uSize.x * 2.0 - 1.0, 1.0 - pixel.y / uSize.y * 2.0, 0.0, 1.0);
}`, `${HEAD}
in vec2 vPlace;
uniform sampler2D uPicture;
uniform float uAlpha;
out vec4 color;
void main() { color = texture(uPicture, vPlace) * uAlpha; }
`];
