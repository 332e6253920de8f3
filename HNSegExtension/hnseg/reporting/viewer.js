// Three linked slices and a surface view, drawn from what the page carries; nothing is fetched.
"use strict";
(async function () {
  const data = JSON.parse(document.getElementById("viewer-data").textContent);
  const [nx, ny, nz] = data.size, step = data.spacing_mm;
  const organs = new Map(data.organs.map((organ) => [organ.label, { ...organ, shown: true }]));
  const at = data.start.slice();
  const solidCanvas = document.getElementById("solid");
  const volumes = { ct: await volume(data.ct), labels: await volume(data.labels), mr: data.mr && await volume(data.mr) };

  // Slices come as tiles of one picture, in rows from the lowest; the red channel holds the value.
  async function volume(source) {
    const picture = new Image();
    picture.src = source;
    await picture.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [picture.width, picture.height];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0);
    const values = new Uint8Array(nx * ny * nz);
    for (let k = 0; k < nz; k++) {
      const tile = context.getImageData((k % data.columns) * nx, Math.floor(k / data.columns) * ny, nx, ny).data;
      for (let n = 0; n < nx * ny; n++) values[k * nx * ny + n] = tile[4 * n];
    }
    return values;
  }

  const labelAt = (n) => Math.round(volumes.labels[n] / data.label_step);
  const planes = {
    axial: { w: nx, h: ny, across: 0, down: 1, through: 2, index: (u, v) => (at[2] * ny + v) * nx + u },
    coronal: { w: nx, h: nz, across: 0, down: 2, through: 1, index: (u, v) => ((nz - 1 - v) * ny + at[1]) * nx + u },
    sagittal: { w: ny, h: nz, across: 1, down: 2, through: 0, index: (u, v) => ((nz - 1 - v) * ny + u) * nx + at[0] },
  };
  const row = (plane, value) => (plane.down === 2 ? nz - 1 - value : value);
  const control = (id) => Number((document.getElementById(id) || { value: 0 }).value) / 100;

  function drawPlane(name) {
    const plane = planes[name], { w, h } = plane, canvas = document.getElementById(name);
    const blend = volumes.mr ? control("blend") : 0, strength = control("strength"), image = new ImageData(w, h);
    const label = new Uint8Array(w * h);
    for (let v = 0; v < h; v++) for (let u = 0; u < w; u++) label[v * w + u] = labelAt(plane.index(u, v));
    for (let v = 0; v < h; v++) for (let u = 0; u < w; u++) {
      const n = plane.index(u, v), p = v * w + u, organ = organs.get(label[p]);
      const gray = volumes.ct[n] * (1 - blend) + (blend ? volumes.mr[n] * blend : 0);
      let rgb = [gray, gray, gray];
      if (organ && organ.shown) {
        const rim = u === 0 || v === 0 || label[p] !== label[p - 1] || label[p] !== label[p - w] ||
          label[p] !== label[p + 1] || label[p] !== label[p + w];
        const share = strength * (rim ? 1 : 0.45);
        rgb = organ.rgb.map((c) => c * share + gray * (1 - share));
      }
      image.data.set([rgb[0], rgb[1], rgb[2], 255], 4 * p);
    }
    paint(canvas, plane, image);
  }

  // The slice keeps its shape and is centred in the square pane.
  function fit(canvas, plane) {
    const side = canvas.clientWidth * devicePixelRatio, scale = side / Math.max(plane.w, plane.h);
    return { side, scale, left: (side - plane.w * scale) / 2, top: (side - plane.h * scale) / 2 };
  }

  function paint(canvas, plane, image) {
    const small = document.createElement("canvas");
    [small.width, small.height] = [plane.w, plane.h];
    small.getContext("2d").putImageData(image, 0, 0);
    const { side, scale, left, top } = fit(canvas, plane), context = canvas.getContext("2d");
    canvas.width = canvas.height = side;
    context.imageSmoothingQuality = "high";
    context.drawImage(small, left, top, plane.w * scale, plane.h * scale);
    context.strokeStyle = "rgba(255, 221, 120, .45)";
    const x = left + (at[plane.across] + 0.5) * scale, y = top + (row(plane, at[plane.down]) + 0.5) * scale;
    context.beginPath();
    context.moveTo(x, top); context.lineTo(x, top + plane.h * scale);
    context.moveTo(left, y); context.lineTo(left + plane.w * scale, y);
    context.stroke();
  }

  function draw() {
    Object.keys(planes).forEach(drawPlane);
    const organ = organs.get(labelAt((at[2] * ny + at[1]) * nx + at[0]));
    const mm = at.map((index, n) => (data.origin_lps[n] + index * step).toFixed(0)).join(", ");
    document.getElementById("place").textContent = `LPS ${mm} mm${organ ? " · " + organ.name : ""}`;
  }

  const clamp = (value, size) => Math.max(0, Math.min(size - 1, Math.round(value)));
  function bindSlices(name) {
    const plane = planes[name], canvas = document.getElementById(name);
    const point = (event) => {
      const { scale, left, top } = fit(canvas, plane);
      at[plane.across] = clamp((event.offsetX * devicePixelRatio - left) / scale - 0.5, data.size[plane.across]);
      const v = (event.offsetY * devicePixelRatio - top) / scale - 0.5;
      at[plane.down] = clamp(plane.down === 2 ? nz - 1 - v : v, data.size[plane.down]);
      draw();
    };
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); point(event); });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons) point(event); });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      at[plane.through] = clamp(at[plane.through] - Math.sign(event.deltaY), data.size[plane.through]);
      draw();
    }, { passive: false });
  }

  // Surfaces: positions as 16-bit numbers in the box of all, normals as signed bytes, one draw call an organ.
  function bytes(text) { return Uint8Array.from(atob(text), (c) => c.charCodeAt(0)); }
  function surfaces() {
    const gl = solidCanvas.getContext("webgl", { antialias: true });
    if (!gl) { solidCanvas.parentElement.classList.add("flat"); return () => {}; }
    const compile = (kind, text) => { const s = gl.createShader(kind); gl.shaderSource(s, text); gl.compileShader(s); return s; };
    const program = gl.createProgram();
    gl.attachShader(program, compile(gl.VERTEX_SHADER, `attribute vec3 p; attribute vec3 n; uniform mat3 turn; uniform vec3 low, span, middle;
      uniform float zoom; varying vec3 normal; void main() { normal = turn * n; vec3 q = turn * (low + p * span - middle) * zoom;
      gl_Position = vec4(q.x, q.z, q.y * 0.2, 1.0); }`));
    gl.attachShader(program, compile(gl.FRAGMENT_SHADER, `precision mediump float; varying vec3 normal; uniform vec4 colour; void main() {
      vec3 m = normalize(normal); float lit = max(dot(m, normalize(vec3(-0.35, -0.8, 0.5))), 0.0); float rim = 1.0 - abs(m.y);
      float a = colour.a < 1.0 ? colour.a * (0.35 + 1.6 * rim * rim) : 1.0; gl_FragColor = vec4(colour.rgb * (0.32 + 0.68 * lit), a); }`));
    gl.linkProgram(program);
    gl.useProgram(program);
    const buffer = (kind, content) => { const b = gl.createBuffer(); gl.bindBuffer(kind, b); gl.bufferData(kind, content, gl.STATIC_DRAW); return b; };
    const meshes = data.meshes.map((mesh) => {
      const triangles = new Uint16Array(bytes(mesh.triangles).buffer);
      return { label: mesh.label, rgb: mesh.rgb.map((c) => c / 255), count: triangles.length,
        p: buffer(gl.ARRAY_BUFFER, new Uint16Array(bytes(mesh.points).buffer)), n: buffer(gl.ARRAY_BUFFER, new Int8Array(bytes(mesh.normals).buffer)),
        t: buffer(gl.ELEMENT_ARRAY_BUFFER, triangles) };
    });
    const uniform = (name) => gl.getUniformLocation(program, name), attribute = (name) => gl.getAttribLocation(program, name);
    const [p, n] = [attribute("p"), attribute("n")], [low, high] = data.mesh_box;
    const span = high.map((value, axis) => value - low[axis]);
    const [near, far] = data.focus, middle = near.map((value, axis) => (value + far[axis]) / 2);
    let azimuth = 0.6, elevation = 0.18, zoom = 1.55 / Math.max(...far.map((value, axis) => value - near[axis])), queued = false;
    gl.enableVertexAttribArray(p); gl.enableVertexAttribArray(n);
    gl.enable(gl.DEPTH_TEST); gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);

    function show() {
      queued = false;
      const side = solidCanvas.clientWidth * devicePixelRatio;
      solidCanvas.width = solidCanvas.height = side;
      gl.viewport(0, 0, side, side);
      gl.clearColor(0.063, 0.078, 0.102, 1); gl.depthMask(true); gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      const [ca, sa, ce, se] = [Math.cos(azimuth), Math.sin(azimuth), Math.cos(elevation), Math.sin(elevation)];
      gl.uniformMatrix3fv(uniform("turn"), false, [ca, -sa * ce, -sa * se, sa, ca * ce, ca * se, 0, -se, ce]);
      gl.uniform3fv(uniform("low"), low); gl.uniform3fv(uniform("span"), span); gl.uniform3fv(uniform("middle"), middle);
      gl.uniform1f(uniform("zoom"), zoom);
      for (const veil of [false, true]) for (const mesh of meshes.filter((m) => (m.label === 0) === veil)) {
        if (!veil && !organs.get(mesh.label).shown) continue;
        if (veil) { gl.enable(gl.BLEND); gl.depthMask(false); } else gl.disable(gl.BLEND);
        gl.uniform4fv(uniform("colour"), [...mesh.rgb, veil ? 0.22 * control("skin") : 1]);
        gl.bindBuffer(gl.ARRAY_BUFFER, mesh.p); gl.vertexAttribPointer(p, 3, gl.UNSIGNED_SHORT, true, 8, 0);
        gl.bindBuffer(gl.ARRAY_BUFFER, mesh.n); gl.vertexAttribPointer(n, 3, gl.BYTE, true, 4, 0);
        gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, mesh.t); gl.drawElements(gl.TRIANGLES, mesh.count, gl.UNSIGNED_SHORT, 0);
      }
    }
    const request = () => { if (!queued) { queued = true; requestAnimationFrame(show); } };
    solidCanvas.addEventListener("pointerdown", (event) => solidCanvas.setPointerCapture(event.pointerId));
    solidCanvas.addEventListener("pointermove", (event) => {
      if (!event.buttons) return;
      azimuth -= event.movementX / 150;
      elevation = Math.max(-1.5, Math.min(1.5, elevation + event.movementY / 150));
      request();
    });
    solidCanvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom *= Math.exp(-event.deltaY / 800); request(); }, { passive: false });
    return request;
  }

  const showSolid = surfaces();
  function list() {
    const place = document.getElementById("organs");
    for (const organ of organs.values()) {
      const item = document.createElement("li"), colour = document.createElement("i");
      colour.style.background = `rgb(${organ.rgb.join(",")})`;
      item.append(colour, organ.name);
      item.title = "click: show or hide; double click: go there";
      const mark = () => item.classList.toggle("off", !organ.shown);
      organ.mark = mark;
      item.addEventListener("click", () => { organ.shown = !organ.shown; mark(); draw(); showSolid(); });
      item.addEventListener("dblclick", () => { organ.shown = true; mark(); at.splice(0, 3, ...organ.centre); draw(); showSolid(); });
      place.append(item);
    }
    for (const [id, shown] of [["all", true], ["none", false]]) document.getElementById(id).addEventListener("click", () => {
      organs.forEach((organ) => { organ.shown = shown; organ.mark(); });
      draw(); showSolid();
    });
  }

  Object.keys(planes).forEach(bindSlices);
  for (const id of ["strength", "blend"]) document.getElementById(id)?.addEventListener("input", draw);
  document.getElementById("skin").addEventListener("input", showSolid);
  addEventListener("resize", () => { draw(); showSolid(); });
  list(); draw(); showSolid();
})();
