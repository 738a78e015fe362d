/** Moving through a grid with the keyboard. */

/**
 * Return the cell that a key leads to, [row, column]; null: the key does not move.
 *
 * Arrows move by one cell, Home and End to the ends of the row, and with Ctrl of the grid, Page Up
 * and Page Down to the first and the last row, as in WAI-ARIA's pattern for grids.
 */
export function move(event, row, column, rows, columns) {
  const far = event.ctrlKey || event.metaKey;
  const to = {
    ArrowUp: [row - 1, column],
    ArrowDown: [row + 1, column],
    ArrowLeft: [row, column - 1],
    ArrowRight: [row, column + 1],
    Home: [far ? 0 : row, 0],
    End: [far ? rows - 1 : row, columns - 1],
    PageUp: [0, column],
    PageDown: [rows - 1, column],
  }[event.key];
  if (!to) return null;
  const within = (x, n) => Math.min(n - 1, Math.max(0, x));
  return [within(to[0], rows), within(to[1], columns)];
}
