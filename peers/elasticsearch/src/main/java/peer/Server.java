package peer;

import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.node.InternalSettingsPreparer;
import org.elasticsearch.node.Node;
import org.elasticsearch.transport.Netty4Plugin;

/**
 * An Elasticsearch of one node, with its HTTP on loopback.
 *
 * <p>It is told {@code --server.port=PORT}, as other servers in Java are, and the folder for its data.
 */
public final class Server extends Node {
    private Server(Settings settings) {
        super(
                InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), null, () -> "peer"),
                List.of(Netty4Plugin.class),
                false);
    }

    public static void main(String[] arguments) throws Exception {
        String port = arguments[0].replace("--server.port=", "");
        Settings settings =
                Settings.builder()
                        .put("path.home", arguments[1])
                        .put("network.host", "127.0.0.1")
                        .put("http.port", port)
                        .put("transport.port", "0")
                        .put("discovery.type", "single-node")
                        .put("cluster.routing.allocation.disk.threshold_enabled", false)
                        .build();
        Server node = new Server(settings);
        CountDownLatch closed = new CountDownLatch(1);
        Runtime.getRuntime()
                .addShutdownHook(
                        new Thread(
                                () -> {
                                    try {
                                        node.close();
                                    } catch (java.io.IOException error) {
                                        error.printStackTrace();
                                    }
                                    closed.countDown();
                                }));
        node.start();
        closed.await();
    }
}
