/** A control in which somebody writes a part of the state of a page: it is theirs until they leave it, or press Enter. */

export class Written {
  /** What the state says. */
  #shown = "";
  /** What was in the control when it was last taken. */
  #taken = "";

  /** @param {any} control @param {(text: string) => void} take called with what somebody wrote */
  constructor(control, take) {
    this.control = control;
    this.take = take;
    control.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Enter" && !event.isComposing) this.#done();
    });
    control.addEventListener("focusout", () => {
      this.#done();
      this.#settle();
    });
    // The cross of a search field.
    control.addEventListener("search", () => control.value === "" && this.#done());
  }

  /** Whether it holds what nobody has taken yet. */
  get isBeingWritten() {
    return this.control.value !== this.#taken;
  }

  /** Shows what the state says now, unless somebody is in the control. @param {string} text */
  show(text) {
    this.#shown = text;
    if (document.activeElement !== this.control) this.#settle();
  }

  #done() {
    if (!this.isBeingWritten) return;
    // Until the state says something else, it says this.
    this.#taken = this.#shown = this.control.value;
    this.take(this.#taken);
  }

  #settle() {
    // A control that has lost its place was not left.
    if (!this.control.isConnected && this.isBeingWritten) return;
    this.#taken = this.#shown;
    if (this.control.value !== this.#shown) this.control.value = this.#shown;
  }
}
