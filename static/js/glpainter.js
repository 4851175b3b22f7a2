/**
 * Draws layers with a graphics card. What a block needs lies on the card once; threshold, colours, classes and comparison
 * are a few numbers and two small tables, so changing them costs one frame.
 *
 * Features that are stars around their middle, as nuclei are, are filled by fans; all others by counting, in the stencil
 * buffer, how often triangles between their vertices wind around a pixel, which needs no triangulation and takes any ring.
 */

import { CASING } from "./canvaspainter.js";
import { fit } from "./frame.js";
import { compose } from "./geometry.js";
import { bindTexture, CardBlocks, nearest, pictureTexture, Program } from "./glblocks.js";
import { OUTLINED_FROM, rgb, SHAPE_FROM } from "./looks.js";
import { COVER, DOT, FAN, LINE, PICTURE, WINDING } from "./shaders.js";

/** @typedef {import("./blocks.js").Block} Block */
/** @typedef {import("./canvaspainter.js").Scene} Scene */
/** @typedef {import("./canvaspainter.js").Shapes} Shapes */
/** @typedef {import("./frame.js").Frame} Frame */

/** @typedef {import("./glblocks.js").Held} Held */

/** Milliseconds of a frame in which new blocks are brought to the card. */
const BUILD_MS = 6;
const CONTEXT = { antialias: true, stencil: true, depth: true, alpha: true, premultipliedAlpha: true };

export class GlPainter {
  /** @param {HTMLCanvasElement} canvas @returns {GlPainter | null} null where there is no WebGL 2 */
  static on(canvas) {
    const gl = /** @type {WebGL2RenderingContext | null} */ (canvas.getContext("webgl2", CONTEXT));
    return gl === null ? null : new GlPainter(canvas, gl);
  }

  /** @param {HTMLCanvasElement} canvas @param {WebGL2RenderingContext} gl */
  constructor(canvas, gl) {
    this.canvas = canvas;
    this.gl = gl;
    this.blocks = new CardBlocks(gl);
    /** @type {Map<any, any>} textures of pictures by their source */
    this.pictures = new Map();
    this.programs = Object.fromEntries(Object.entries({ FAN, WINDING, COVER, LINE, DOT, PICTURE })
      .map(([name, sources]) => [name, new Program(gl, sources)]));
    this.looks = gl.createTexture();
    this.empty = gl.createVertexArray();
  }

  /** Draw a scene. @param {Frame} frame @param {Scene} scene
   * @returns {boolean} whether everything was drawn; if not, blocks wait for the next frames */
  paint(frame, scene) {
    const { gl } = this;
    fit(this.canvas, frame);
    gl.viewport(0, 0, frame.width, frame.height);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT | gl.STENCIL_BUFFER_BIT);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    for (const picture of scene.pictures) this.drawPicture(frame, picture);
    const until = performance.now() + BUILD_MS;
    let [complete, depth] = [true, 0];
    for (const shapes of scene.shapes) {
      complete = this.drawShapes(frame, shapes, depth, until) && complete;
      depth += shapes.looks.length;
    }
    this.tidyPictures(scene);
    return complete;
  }

  /** @param {Frame} frame @param {Shapes} shapes @param {number} depth @param {number} until time to stop building
   * @returns {boolean} whether all blocks were drawn */
  drawShapes(frame, shapes, depth, until) {
    const { gl } = this;
    this.setLooks(shapes.looks);
    /** @type {[Block, Held][]} */
    const ready = [];
    for (const block of shapes.blocks) {
      const held = this.blocks.held.get(block) ?? (performance.now() < until ? this.blocks.hold(block) : undefined);
      if (held === undefined) continue;
      if (shapes.states !== null) this.blocks.setStates(block, held, shapes.states);
      ready.push([block, held]);
    }
    const limit = (SHAPE_FROM * frame.density) / frame.scale;
    const large = ready.filter(([block]) => block.largest >= limit);
    this.wind(frame, shapes, depth, large);
    this.each("FAN", frame, shapes, depth, large, (held) => {
      gl.bindVertexArray(held.fans);
      gl.drawElements(gl.TRIANGLES, held.fanCount, gl.UNSIGNED_INT, 0);
    });
    this.drawLines(frame, shapes, depth, large);
    this.each("DOT", frame, shapes, depth, ready.filter(([block]) => block.smallest < limit), (held, block) => {
      gl.bindVertexArray(held.dots);
      gl.drawArrays(gl.POINTS, 0, block.count);
    });
    return ready.length === shapes.blocks.length;
  }

  /** @param {Frame} frame @param {Shapes} shapes @param {number} depth @param {[Block, Held][]} blocks */
  drawLines(frame, shapes, depth, blocks) {
    const { gl } = this;
    gl.enable(gl.DEPTH_TEST);
    gl.depthFunc(gl.LESS);
    const cased = shapes.looks.some((look) => look?.dashed);
    for (const casing of cased ? [true, false] : [false]) {
      this.each("LINE", frame, shapes, depth, blocks, (held) => {
        gl.bindVertexArray(held.lines);
        gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, held.edges);
      }, (program) => {
        program.setInt("uCasing", casing ? 1 : 0);
        gl.uniform4f(program.at("uCasingColor"), ...unit(CASING), 0.75);
      });
    }
    gl.disable(gl.DEPTH_TEST);
  }

  /** Fill what is wound: for each look count the windings, then colour what was counted. @param {Frame} frame
   * @param {Shapes} shapes @param {number} depth @param {[Block, Held][]} blocks */
  wind(frame, shapes, depth, blocks) {
    const wound = blocks.filter(([, held]) => held.ranges.length > 0);
    if (wound.length === 0) return;
    shapes.looks.forEach((look, number) => {
      if (look === null) return;
      for (const small of [false, true]) {
        const alpha = small ? look.dot : look.fill;
        const those = wound.filter(([, held]) => (
          (!small || held.smallestWound * frame.scale < OUTLINED_FROM * frame.density)
          && (shapes.states !== null || held.ranges.some((each) => each.class === number))));
        if (alpha <= 0 || those.length === 0) continue;
        this.count(frame, shapes, depth, those, number, small);
        this.cover(look.color, alpha);
      }
    });
  }

  /** @param {Frame} frame @param {Shapes} shapes @param {number} depth @param {[Block, Held][]} blocks @param {number} look
   * @param {boolean} small */
  count(frame, shapes, depth, blocks, look, small) {
    const { gl } = this;
    gl.enable(gl.STENCIL_TEST);
    gl.colorMask(false, false, false, false);
    gl.stencilFunc(gl.ALWAYS, 0, 255);
    gl.stencilOpSeparate(gl.FRONT, gl.KEEP, gl.KEEP, gl.INCR_WRAP);
    gl.stencilOpSeparate(gl.BACK, gl.KEEP, gl.KEEP, gl.DECR_WRAP);
    this.each("WINDING", frame, shapes, depth, blocks, (held) => {
      gl.bindVertexArray(held.windings);
      for (const range of held.ranges) {
        if (shapes.states === null && range.class !== look) continue;
        gl.drawElements(gl.TRIANGLES, range.count, gl.UNSIGNED_INT, 4 * range.from);
      }
    }, (program) => {
      program.setInt("uLook", look);
      program.setInt("uSmall", small ? 1 : 0);
    });
  }

  /** Colour all that was counted, and forget it. @param {string} color @param {number} alpha */
  cover(color, alpha) {
    const { gl } = this;
    gl.colorMask(true, true, true, true);
    gl.stencilFunc(gl.NOTEQUAL, 0, 255);
    gl.stencilOp(gl.ZERO, gl.ZERO, gl.ZERO);
    const program = this.programs.COVER.use();
    gl.uniform4f(program.at("uColor"), ...unit(color), alpha);
    gl.bindVertexArray(this.empty);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    gl.disable(gl.STENCIL_TEST);
  }

  /** Draw every block with one program. @param {string} name @param {Frame} frame @param {Shapes} shapes
   * @param {number} depth @param {[Block, Held][]} blocks @param {(held: Held, block: Block) => void} draw
   * @param {(program: Program) => void} [prepare] */
  each(name, frame, shapes, depth, blocks, draw, prepare = () => {}) {
    if (blocks.length === 0) return;
    const { gl } = this;
    const program = this.programs[name].use();
    const [a, b, c, d] = frame.matrix;
    gl.uniform4f(program.at("uTurn"), a, b, c, d);
    gl.uniform2f(program.at("uSize"), frame.width, frame.height);
    gl.uniform1f(program.at("uScale"), frame.scale);
    gl.uniform1f(program.at("uDensity"), frame.density);
    gl.uniform1f(program.at("uLeast"), shapes.least);
    program.setInt("uDepth", depth);
    program.setInt("uByState", shapes.states === null ? 0 : 1);
    ["uTable", "uStates", "uLooks"].forEach((sampler, at) => program.setInt(sampler, at));
    bindTexture(gl, 2, this.looks);
    prepare(program);
    for (const [block, held] of blocks) {
      const [, , , , e, f] = compose(frame.matrix, [1, 0, 0, 1, block.originX, block.originY]);
      gl.uniform2f(program.at("uShift"), e, f);
      bindTexture(gl, 0, held.table);
      bindTexture(gl, 1, held.states);
      draw(held, block);
    }
  }

  /** @param {Frame} frame @param {import("./canvaspainter.js").Picture} picture */
  drawPicture(frame, { source, box, alpha }) {
    const { gl } = this;
    const program = this.programs.PICTURE.use();
    const [a, b, c, d, e, f] = compose(frame.matrix, [1, 0, 0, 1, box[0], box[1]]);
    gl.uniform4f(program.at("uTurn"), a, b, c, d);
    gl.uniform2f(program.at("uShift"), e, f);
    gl.uniform2f(program.at("uSize"), frame.width, frame.height);
    gl.uniform4f(program.at("uBox"), 0, 0, box[2] - box[0], box[3] - box[1]);
    gl.uniform1f(program.at("uAlpha"), alpha);
    program.setInt("uPicture", 0);
    if (!this.pictures.has(source)) this.pictures.set(source, pictureTexture(gl, source));
    bindTexture(gl, 0, this.pictures.get(source));
    gl.bindVertexArray(this.empty);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  }

  /** @param {Scene} scene */
  tidyPictures(scene) {
    for (const [source, texture] of this.pictures) {
      if (scene.pictures.some((each) => each.source === source)) continue;
      this.gl.deleteTexture(texture);
      this.pictures.delete(source);
    }
  }

  /** Let go of a block. @param {Block} block */
  forget(block) {
    this.blocks.forget(block);
  }

  /** @param {(import("./looks.js").Look | null)[]} looks */
  setLooks(looks) {
    const { gl } = this;
    const width = Math.max(1, looks.length);
    const table = new Float32Array(8 * width).fill(-1);
    looks.forEach((look, at) => {
      if (look === null) return;
      table.set([...unit(look.color), look.fill], 4 * at);
      table.set([look.line, look.width, look.dot, look.dashed ? 1 : 0], 4 * (width + at));
    });
    bindTexture(gl, 2, this.looks);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32F, width, 2, 0, gl.RGBA, gl.FLOAT, table);
    nearest(gl);
  }
}

/** @param {string} color @returns {[number, number, number]} 0 to 1 */
function unit(color) {
  return /** @type {[number, number, number]} */ (rgb(color).map((each) => each / 255));
}
