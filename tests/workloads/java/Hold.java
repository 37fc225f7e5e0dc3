/** Holds two million small arrays until its stdin ends. */
public class Hold {
    public static void main(String[] arguments) throws Exception {
        int[][] held = new int[2_000_000][];
        for (int i = 0; i < held.length; i++) {
            held[i] = new int[] {i, i + 1, i + 2, i + 3};
        }
        System.out.println("ready with " + held.length);
        System.in.read();
        System.out.println(held[held.length / 2][0]);
    }
}
