"""Pictures of one episode with its predictions; imported when one is drawn."""
