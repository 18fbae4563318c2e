// Draws the formulas that arithmatex has marked; see docs/formulas.py.
addEventListener("DOMContentLoaded", () => {
  if (typeof renderMathInElement === "undefined") return; // KaTeX is missing
  for (const element of document.querySelectorAll(".arithmatex")) {
    renderMathInElement(element, {
      delimiters: [
        { left: "\\(", right: "\\)", display: false },
        { left: "\\[", right: "\\]", display: true },
      ],
    });
  }
});
