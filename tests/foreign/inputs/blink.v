module blink (input clk, input up, output [3:0] led);
  reg [23:0] count = 0;
  always @(posedge clk) count <= up ? count + 1 : count - 1;
  assign led = count[23:20] ^ count[22:19];
endmodule
